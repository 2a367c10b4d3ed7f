"""Real faults for a cluster: links down, packets lost, processes killed or frozen.

Base of cluster.Cluster, for the tests that hurt it. Nodes are named as Kubernetes names them
(`alpha-1`); `alpha-control` is the host of the API server and the store.
"""

import contextlib
import signal
from typing import Literal

from tests.e2e.kubernetes import parts
from tests.e2e.kubernetes.network import GATEWAY, Host, run
from tests.e2e.kubernetes.node import Node
from tests.e2e.kubernetes.parts import Part

PartName = Literal[
    "etcd", "apiserver", "controller-manager", "scheduler", "store", "kubelet", "containerd"
]
Direction = Literal["in", "out"]
CHAINS = {"in": "INPUT", "out": "OUTPUT"}


class Faults:
    """Needs of the cluster: its hosts, nodes, the records of its parts, and a way to wait."""

    name: str

    @property
    def control(self) -> Host:
        raise NotImplementedError

    @property
    def nodes(self) -> list[Node]:
        raise NotImplementedError

    def part(self, name: str, *, node: str = "") -> Part:
        raise NotImplementedError

    def restart(self, part: PartName, *, node: str = "") -> None:
        raise NotImplementedError

    def await_ready(self, *nodes: str) -> None:
        raise NotImplementedError

    def node(self, name: str) -> Node:
        return next(node for node in self.nodes if node.name == name)

    def host(self, name: str) -> Host:
        hosts = [self.control, *(node.host for node in self.nodes)]
        return next(host for host in hosts if host.name == name)

    def cut(self, host: str) -> None:
        """The link goes down; what runs behind it goes on."""
        run("ip", "link", "set", self.host(host).link, "down")

    def heal(self, host: str) -> None:
        run("ip", "link", "set", self.host(host).link, "up")

    def cut_all(self) -> None:
        """The region is gone from the world: control plane, store and every node."""
        for host in (self.control, *(node.host for node in self.nodes)):
            self.cut(host.name)

    def heal_all(self) -> None:
        for host in (self.control, *(node.host for node in self.nodes)):
            self.heal(host.name)

    def isolate(self) -> None:
        """The region loses the machine's side (agents, tests, the global endpoint); its nodes, its
        API server and its store still reach each other."""
        for host in (self.control, *(node.host for node in self.nodes)):
            for direction in ("in", "out"):
                self.drop(host.name, direction, peer=GATEWAY)

    def join_again(self) -> None:
        for host in (self.control, *(node.host for node in self.nodes)):
            for direction in ("in", "out"):
                self.undrop(host.name, direction, peer=GATEWAY)

    def drop(self, host: str, direction: Direction, *, peer: str = "") -> None:
        """Packets one way vanish at the host, those of its pods too; `peer`: only those of one
        address."""
        for rule in self._rules(direction, peer):
            run(*self.host(host).inside("iptables", "-w", "-I", *rule))

    def undrop(self, host: str, direction: Direction, *, peer: str = "") -> None:
        for rule in self._rules(direction, peer):
            with contextlib.suppress(RuntimeError):  # it was not there
                run(*self.host(host).inside("iptables", "-w", "-D", *rule))

    def shape(self, host: str, *, delay_ms: int = 0, loss_percent: int = 0) -> None:
        """Slow or lossy packets from the host; without either, as before."""
        device = ("dev", "eth0", "root")
        with contextlib.suppress(RuntimeError):
            run(*self.host(host).inside("tc", "qdisc", "del", *device))
        if delay_ms or loss_percent:
            how = ("netem", "delay", f"{delay_ms}ms", "loss", f"{loss_percent}%")
            run(*self.host(host).inside("tc", "qdisc", "add", *device, *how))

    def crash(self, node: str) -> None:
        """SIGKILL to the kubelet, containerd and every process of the node's pods."""
        self.node(node).kill()

    def restart_node(self, node: str) -> None:
        """Back after a crash, and Ready."""
        self.node(node).restart()
        self.await_ready(node)

    def signal(self, part: PartName, number: signal.Signals, *, node: str = "") -> None:
        """To one server; parts of a node need its name."""
        parts.send(self.part(part, node=node), number)

    @staticmethod
    def _rules(direction: Direction, peer: str) -> list[tuple[str, ...]]:
        inward = direction == "in"
        who = ("-s" if inward else "-d", peer) if peer else ()
        through = ("-i" if inward else "-o", "eth0")
        return [(chain, *through, *who, "-j", "DROP") for chain in (CHAINS[direction], "FORWARD")]
