"""Hosts of the test clusters: network namespaces on one bridge of this machine.

Used by node.py and cluster.py to make and remove hosts, by faults.py to hurt their links.
The machine itself (the tests, agents, the global endpoint) is GATEWAY.
"""

import contextlib
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.kubernetes.state import locked

BRIDGE = "whimbrel0"
GATEWAY = "10.91.0.254"
CLUSTERS = 15
"""Each has 16 addresses: the first for its control plane and store, the others for nodes."""


def run(*command: str, stdin: str = "", timeout: float = 120) -> str:
    """What it prints; RuntimeError with its complaint when it fails."""
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=timeout)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


@dataclass(frozen=True, slots=True)
class Host:
    """Number 0 of a cluster is its control plane, 1 and up are its nodes."""

    cluster: str
    index: int
    number: int

    @property
    def name(self) -> str:
        return f"{self.cluster}-{self.number}" if self.number else f"{self.cluster}-control"

    @property
    def namespace(self) -> str:
        return f"whimbrel-{self.name}"

    @property
    def link(self) -> str:
        return f"whim{self.index}.{self.number}"  # an interface's name has 15 characters

    @property
    def address(self) -> str:
        return f"10.91.0.{self.index * 16 + 1 + self.number}"

    @property
    def pods(self) -> str:
        return f"10.92.{self.index * 16 + self.number}.0/24"

    def inside(self, *command: str) -> tuple[str, ...]:
        # Not `ip netns exec`: that one hides /sys/fs/cgroup.
        return ("nsenter", f"--net=/run/netns/{self.namespace}", *command)


def create(host: Host) -> None:
    with locked("network"):
        if not Path(f"/sys/class/net/{BRIDGE}").exists():
            run("ip", "link", "add", BRIDGE, "type", "bridge")
            run("ip", "addr", "add", f"{GATEWAY}/24", "dev", BRIDGE)
            run("ip", "link", "set", BRIDGE, "up")
            if Path("/proc/sys/net/bridge/bridge-nf-call-iptables").exists():
                # Container engines drop what they do not know, on bridges too.
                run("iptables", "-I", "FORWARD", "-i", BRIDGE, "-o", BRIDGE, "-j", "ACCEPT")
        space = host.namespace
        run("ip", "netns", "add", space)
        run("ip", "link", "add", host.link, "type", "veth", "peer", "name", "eth0", "netns", space)
        run("ip", "link", "set", host.link, "master", BRIDGE, "up")
        run("ip", "-n", space, "addr", "add", f"{host.address}/24", "dev", "eth0")
        run("ip", "-n", space, "link", "set", "eth0", "up")
        run("ip", "-n", space, "link", "set", "lo", "up")
        run("ip", "-n", space, "route", "add", "default", "via", GATEWAY)
        run(*host.inside("sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward"))


def remove(host: Host) -> None:
    """Whatever of it is there; the bridge goes with the last host."""
    with locked("network"), contextlib.suppress(RuntimeError):
        if Path(f"/sys/class/net/{host.link}").exists():
            run("ip", "link", "del", host.link)
        if Path(f"/run/netns/{host.namespace}").exists():
            run("ip", "netns", "del", host.namespace)
        ports = Path(f"/sys/class/net/{BRIDGE}/brif")
        if ports.exists() and not any(ports.iterdir()):
            run("ip", "link", "del", BRIDGE)
            with contextlib.suppress(RuntimeError):
                run("iptables", "-D", "FORWARD", "-i", BRIDGE, "-o", BRIDGE, "-j", "ACCEPT")


def processes(host: Host) -> set[int]:
    """Everything that runs in the host's namespace: its servers and containerd's shims."""
    if not Path(f"/run/netns/{host.namespace}").exists():
        return set()
    return {int(pid) for pid in run("ip", "netns", "pids", host.namespace).split()}
