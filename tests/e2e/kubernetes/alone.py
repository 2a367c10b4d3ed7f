"""Exclusive runs in pods, what their tasks stamped, and how they are lost.

Used by the tests and by the failure report. The tasks stamp their own output, which their machine
keeps on its disk while nobody can reach it.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from tests.e2e.federation import eventually
from tests.e2e.kubernetes.cluster import Cluster
from tests.e2e.kubernetes.runs import PATIENCE, Cloud, PodRun

TTL = 5.0
"""Seconds, of the preset of the test federation."""
RENEWALS = 3
Loss = Literal["node", "region", "agent"]
"""The node of the task is cut off; the region is, with its agent; its agent alone is."""


@dataclass(frozen=True, order=True)
class Try:
    epoch: int
    attempt: int


class Journal:
    """What the tries of a run stamped, by the logs that kubelets keep: of each the first and the
    last time that was ever seen, Unix ns."""

    def __init__(self, clusters: Mapping[str, Cluster], run: str) -> None:
        self._clusters, self._run = clusters, run
        self.first: dict[Try, int] = {}
        self.last: dict[Try, int] = {}

    def look(self) -> None:
        for cluster in self._clusters.values():
            for node in cluster.nodes:
                for file in (node.folder / "pod-logs").glob("*/task/*.log"):
                    with suppress(FileNotFoundError):  # its pod is gone: it was read before
                        self._read(file.read_text(errors="replace"))

    def _read(self, text: str) -> None:
        mine, whole = f" F {self._run} ticks ", text.rpartition("\n")[0].splitlines()
        for line in filter(lambda line: mine in line, whole):
            *_, epoch, attempt, at = line.split()
            who, ns = Try(int(epoch), int(attempt)), int(at)
            self.first[who] = min(ns, self.first.get(who, ns))
            self.last[who] = max(ns, self.last.get(who, ns))

    def tries(self) -> list[Try]:
        self.look()
        return sorted(self.first)

    def newest(self) -> int:
        self.look()
        return max(self.last.values(), default=0)

    def gaps(self) -> list[float]:
        """Seconds from the last stamp of each try to the first of the next one; negative: two ran
        at once."""
        return [(self.first[b] - self.last[a]) / 1e9 for a, b in pairwise(self.tries())]


def launched(
    cloud: Cloud, clusters: Mapping[str, Cluster], name: str, *regions: str
) -> tuple[PodRun, Journal]:
    """It has been renewed: it has run for longer than one session's time to live."""
    options = [part for region in regions for part in ("--region", region)]
    run, journal = cloud.launch(name, "alone", *options), Journal(clusters, name)
    run.await_said("ticks from")
    begun = time.time_ns()
    enough = begun + int(RENEWALS * TTL * 1e9)
    eventually("it runs on and on", lambda: journal.newest() > enough, deadline=PATIENCE)
    assert run.said("ticks from") == 1
    eventually("the ledger knows", lambda: run.running_on("tick"), deadline=PATIENCE)
    return run, journal


def next_try(journal: Journal) -> None:
    eventually("another try runs", lambda: len(journal.tries()) > 1, deadline=PATIENCE)
    # What the first one still did is on the disk a moment later.
    last = journal.first[journal.tries()[-1]]
    enough = last + int(TTL * 1e9)
    eventually("it runs on", lambda: journal.newest() > enough, deadline=PATIENCE)


def finish(run: PodRun) -> None:
    run.open()
    assert run.await_end() == "SUCCEEDED"


@contextmanager
def lost(cloud: Cloud, clusters: Mapping[str, Cluster], run: PodRun, what: Loss) -> Iterator[None]:
    """Well again afterwards."""
    source = run.execution["cluster"]
    cluster, host = clusters[source], run.running_on("tick")
    if what == "node":
        cluster.cut(host)
    else:
        cloud.federation.sandbox_command("cut", source)
    if what == "region":
        cluster.cut_all()
    try:
        yield
    finally:
        cluster.heal_all()
        if what != "node":
            cloud.federation.sandbox_command("heal", source)
