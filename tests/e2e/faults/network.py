"""A network of its own for one federation: a namespace whose loopback can lose packets.

Everything of the federation runs inside, so nothing here touches the machine's own network. Needs
root and iproute2 with iptables. Ports tell the links apart: each agent dials a relay of its own.
What is lost comes late: TCP sends it again after 200 ms, 400 ms, and so on.
"""

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Way = Literal["to", "from"]
TOOLS = ("ip", "iptables")


def missing() -> str:
    """Why there can be no such network here, "" = there can."""
    lacking = [tool for tool in TOOLS if shutil.which(tool) is None]
    if lacking:
        return f"{', '.join(lacking)} not installed"
    made = subprocess.run(["ip", "netns", "add", "whimbrel-probe"], capture_output=True, text=True)
    if made.returncode:
        return f"no network namespaces: {made.stderr.strip()}"
    run("ip", "netns", "delete", "whimbrel-probe")
    return ""


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


@dataclass(frozen=True, slots=True)
class Network:
    name: str

    @property
    def inside(self) -> tuple[str, ...]:
        """Before a command that is to run in it."""
        return ("ip", "netns", "exec", self.name)

    def drop(self, address: str, way: Way) -> None:
        """Packets to, or from, this address (host:port) vanish without a word."""
        run(*self.inside, "iptables", "-w", "-A", *self._rule(address, way))

    def lose(self, address: str, way: Way, *, percent: int) -> None:
        """Some packets, by chance."""
        by_chance = ("-m", "statistic", "--mode", "random", "--probability", str(percent / 100))
        run(*self.inside, "iptables", "-w", "-A", *self._rule(address, way, by_chance))

    def heal(self) -> None:
        run(*self.inside, "iptables", "-w", "-F")

    @staticmethod
    def _rule(address: str, way: Way, which: tuple[str, ...] = ()) -> tuple[str, ...]:
        port = address.rpartition(":")[2]
        side = "--dport" if way == "to" else "--sport"
        return ("OUTPUT", "-o", "lo", "-p", "tcp", side, port, *which, "-j", "DROP")


@contextlib.contextmanager
def network(name: str) -> Iterator[Network]:
    """Made here and gone at the end, with whatever an earlier one of the name left."""
    with contextlib.suppress(RuntimeError):
        run("ip", "netns", "delete", name)
    run("ip", "netns", "add", name)
    made = Network(name)
    try:
        run(*made.inside, "ip", "link", "set", "lo", "up")
        yield made
    finally:
        run("ip", "netns", "delete", name)
