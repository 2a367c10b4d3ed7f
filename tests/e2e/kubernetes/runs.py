"""A federation whose regions are real clusters, and its runs as the tests look at them.

The agents run beside the tests, as `whimbrel up --kubeconfig` starts them; faults go to the
clusters' own parts. What happened is read from the database, the tasks' notes and kubectl.
"""

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.e2e.federation import Federation, Run, eventually
from tests.e2e.kubernetes.cluster import Cluster
from tests.e2e.kubernetes.gates import Gates
from tests.e2e.kubernetes.network import GATEWAY
from tests.e2e.kubernetes.settings import up_options

PROGRAMS = Path(__file__).parent / "programs"
IMPATIENT = {
    "lost_seconds": "8", "image_seconds": "10", "unschedulable_seconds": "15",
    "linger_seconds": "1", "grace_seconds": "10", "orphan_seconds": "10",
    "door": f"{GATEWAY}:0", "warm_idle_seconds": "20",
}  # fmt: skip
"""Agents' settings: what takes minutes in production is over soon enough for a test."""
PATIENCE = 180.0
"""Seconds for what needs a node to be missed, or a pod to start on a busy machine."""


class PodRun(Run):
    def __init__(self, federation: Federation, name: str, gates: Gates) -> None:
        super().__init__(federation, name, federation.folder)
        self.gates = gates

    def open(self) -> None:
        self.gates.open(self.name)

    def said(self, text: str) -> int:
        return len(self.gates.said(self.name, text))

    def await_said(self, text: str, *, count: int = 1) -> None:
        self.gates.await_said(self.name, text, count=count, deadline=PATIENCE)

    def await_end(self) -> str:
        return self.await_phase("SUCCEEDED", "FAILED", "ABORTED")

    def await_phase(self, *phases: str) -> str:
        return eventually(
            f"{self.name} is {phases}",
            lambda: (p := self.phase()) in phases and p,
            deadline=PATIENCE,
        )

    def node(self, task: str) -> dict[str, Any]:
        """The node of this task, as `execution get -o json` shows it."""
        return next(n for n in self.execution["nodes"] if n["task"].rsplit(".", 1)[-1] == task)

    def running_on(self, task: str) -> str:
        """The Kubernetes node that the newest attempt runs on, once the ledger knows."""

        def host() -> str:
            node = self.node(task)
            return node["host"] if node["phase"] == "RUNNING" else ""

        return eventually(f"{task} of {self.name} runs", host, deadline=PATIENCE)


@dataclass(slots=True)
class Cloud:
    """`federation` with regions that are clusters; `gates` is what their pods report to. Without
    the file `fuse` the next agent that makes a pod dies right after it, once."""

    federation: Federation
    gates: Gates
    fuse: Path

    def launch(self, name: str, workflow: str, *options: str, door: bool = True) -> PodRun:
        inputs = ("--door", self.gates.door(name)) if door else ()
        self.federation.whimbrel(
            "run", str(PROGRAMS / "pods.py"), workflow, "--remote", "--name", name, *inputs,
            *options,
        )  # fmt: skip
        return PodRun(self.federation, name, self.gates)

    def cancel_all(self) -> None:
        """What a failed test left running must not disturb the next one."""
        with self.federation.database() as database:
            found = database.execute(
                "SELECT id FROM execution WHERE phase NOT IN ('SUCCEEDED', 'FAILED', 'ABORTED')"
            ).fetchall()
        for (name,) in found:
            self.federation.whimbrel("execution", "cancel", name.rsplit("/", 1)[1], check=False)

    def await_ill(self, cluster: str) -> None:
        """Until the router knows that the cluster's API server does not answer."""

        def ill() -> bool:
            shown = self.federation.whimbrel("cluster", "get", cluster, "-o", "json").stdout
            return bool(json.loads(shown)["ill"])

        eventually(f"{cluster} is known to be ill", ill, deadline=PATIENCE)


@contextmanager
def opened(folder: Path, clusters: Mapping[str, Cluster], gates: Gates) -> Iterator[Cloud]:
    fuse = folder / "fuse"
    fuse.touch()  # nothing crashes until a test takes it away
    federation = Federation(
        folder,
        environment={
            "WHIMBREL_CRASH_AT": "pods.after_create", "WHIMBREL_CRASH_ONCE": str(fuse),
        },
        options=["--preset", "lan", *up_options(list(clusters.values()), **IMPATIENT)],
    )  # fmt: skip
    federation.start()
    yield Cloud(federation, gates, fuse)
    federation.stop()


def pods(cluster: Any, *selector: str) -> list[dict[str, Any]]:
    """What kubectl sees of our pods."""
    labels = ",".join(("whimbrel.dev/managed-by=agent", *selector))
    text = cluster.kubectl("-n", "whimbrel", "get", "pods", "-l", labels, "-o", "json")
    return json.loads(text)["items"]


def await_no_pods(cluster: Any, *, deadline: float = PATIENCE) -> None:
    eventually(f"no pod of ours is left in {cluster.name}", lambda: not pods(cluster),
               deadline=deadline)  # fmt: skip


def hold_for(seconds: float) -> None:
    """A fault's own length, such as a frozen API server's: not a wait for something."""
    time.sleep(seconds)
