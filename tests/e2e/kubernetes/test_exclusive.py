"""Exclusive work in pods: however its machine is lost, no second copy runs beside the first."""

import time

import pytest

from tests.e2e.federation import eventually
from tests.e2e.kubernetes.alone import TTL, Loss, finish, launched, lost, next_try
from tests.e2e.kubernetes.cluster import Cluster
from tests.e2e.kubernetes.runs import PATIENCE, Cloud, pods


@pytest.mark.fault(37)
def test_a_cut_node_ends_it_before_another_node_has_it(
    cloud: Cloud, clusters: dict[str, Cluster]
) -> None:
    run, journal = launched(cloud, clusters, "alone-node", "alpha")
    host = run.running_on("tick")
    with lost(cloud, clusters, run, "node"):
        cut_ns = time.time_ns()
        next_try(journal)
        last = journal.last[journal.tries()[0]]
        assert 0 < last - cut_ns < 2 * TTL * 1e9, "it ends by its own timer"
        assert min(journal.gaps()) > 0
        assert run.node("tick")["host"] != host
    finish(run)
    assert min(journal.gaps()) > 0
    assert run.causes() == ["launch"]


@pytest.mark.fault(1, 5)
@pytest.mark.parametrize("what", ["region", "agent"])
def test_a_region_that_is_cut_off_ends_it_before_another_region_has_it(
    cloud: Cloud, clusters: dict[str, Cluster], what: Loss
) -> None:
    """A region without its link has nobody who could delete the pod; an agent without its routers
    has."""
    run, journal = launched(cloud, clusters, f"alone-{what}", "alpha", "beta")
    source = run.execution["cluster"]
    with lost(cloud, clusters, run, what):
        next_try(journal)
        assert min(journal.gaps()) > 0
        assert run.execution["cluster"] != source
    finish(run)
    assert min(journal.gaps()) > 0
    assert run.causes() == ["launch", "failover"]
    eventually("nothing is left there", lambda: not pods(clusters[source]), deadline=PATIENCE)


def test_a_move_takes_its_checkpoint_along_and_never_runs_twice(
    cloud: Cloud, clusters: dict[str, Cluster]
) -> None:
    run, journal = launched(cloud, clusters, "alone-moves", "alpha", "beta")
    target = "beta" if run.execution["cluster"] == "alpha" else "alpha"
    cloud.federation.whimbrel("execution", "migrate", run.name, "--to", target)
    next_try(journal)
    begun = run.gates.said(run.name, "ticks from")
    assert int(begun[-1].text.split()[-1]) > 100, "what it had done is lost"
    finish(run)
    assert min(journal.gaps()) > 0
    assert run.causes() == ["launch", "migration"]
