"""Exclusive work in pods: however its machine is lost, no second copy runs beside the first.

The tasks stamp their own output, which their machine keeps on its disk while nobody can reach it.
"""

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise

import pytest

from tests.e2e.federation import eventually
from tests.e2e.kubernetes.cluster import Cluster
from tests.e2e.kubernetes.runs import PATIENCE, Cloud, PodRun, pods

TTL = 5.0
"""Seconds, of the preset of the test federation."""
RENEWALS = 3


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

    def overlap_ns(self) -> int:
        """By how much the worst try ran on into the next one; negative when none did."""
        tries = self.tries()
        return max(self.last[a] - self.first[b] for a, b in pairwise(tries))


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


@pytest.mark.fault(37)
def test_a_cut_node_ends_it_before_another_node_has_it(
    cloud: Cloud, clusters: dict[str, Cluster]
) -> None:
    run, journal = launched(cloud, clusters, "alone-node", "alpha")
    alpha, host = clusters["alpha"], run.running_on("tick")
    alpha.cut(host)
    cut_ns = time.time_ns()
    try:
        next_try(journal)
        first = journal.tries()[0]
        assert 0 < journal.last[first] - cut_ns < 2 * TTL * 1e9, "it ends by its own timer"
        assert journal.overlap_ns() < 0
        assert run.node("tick")["host"] != host
    finally:
        alpha.heal(host)
    finish(run)
    assert journal.overlap_ns() < 0
    assert run.causes() == ["launch"]


@pytest.mark.fault(1, 5)
@pytest.mark.parametrize("how", ["region", "agent"])
def test_a_region_that_is_cut_off_ends_it_before_another_region_has_it(
    cloud: Cloud, clusters: dict[str, Cluster], how: str
) -> None:
    """A region without its link has nobody who could delete the pod; an agent without its routers
    has."""
    run, journal = launched(cloud, clusters, f"alone-{how}", "alpha", "beta")
    source = run.execution["cluster"]
    if how == "region":
        clusters[source].cut_all()
    cloud.federation.sandbox_command("cut", source)
    try:
        next_try(journal)
        assert journal.overlap_ns() < 0
        assert run.execution["cluster"] != source
    finally:
        if how == "region":
            clusters[source].heal_all()
        cloud.federation.sandbox_command("heal", source)
    finish(run)
    assert journal.overlap_ns() < 0
    assert run.causes() == ["launch", "failover"]
    eventually("nothing is left there", lambda: not pods(clusters[source]), deadline=PATIENCE)


def test_a_move_takes_its_checkpoint_along_and_never_runs_twice(
    cloud: Cloud, clusters: dict[str, Cluster]
) -> None:
    run, journal = launched(cloud, clusters, "alone-moves", "alpha", "beta")
    source = run.execution["cluster"]
    target = "beta" if source == "alpha" else "alpha"
    cloud.federation.whimbrel("execution", "migrate", run.name, "--to", target)
    next_try(journal)
    assert journal.overlap_ns() < 0
    begun = run.gates.said(run.name, "ticks from")
    assert int(begun[-1].text.split()[-1]) > 100, "what it had done is lost"
    finish(run)
    assert run.causes() == ["launch", "migration"]
