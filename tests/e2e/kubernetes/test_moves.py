"""Planned moves between clusters: what runs saves, lets go, and goes on from there."""

from tests.e2e.federation import eventually
from tests.e2e.kubernetes.runs import PATIENCE, Cloud, pods
from tests.e2e.kubernetes.test_nodes import counted_on, resumed


def test_a_move_takes_a_fresh_checkpoint_to_the_other_cluster(cloud: Cloud, clusters: dict) -> None:
    run = cloud.launch("moved", "counting", "--region", "alpha", "--region", "beta")
    counted_on(run)
    source = run.execution["cluster"]
    target = "beta" if source == "alpha" else "alpha"
    cloud.federation.whimbrel("execution", "migrate", "moved", "--to", target)
    run.await_said("counts from", count=2)
    saved = [note for note in run.gates.said(run.name, "saved") if note.attempt == 1]
    assert resumed(run)[0] >= int(saved[-1].text.split()[-1]), "a save was lost"
    run.open()
    assert run.await_end() == "SUCCEEDED"
    assert run.execution["cluster"] == target
    assert run.causes() == ["launch", "migration"]
    node = run.node("count")
    assert (node["user_failures"], node["system_failures"]) == (0, 0), "a move is nobody's failure"
    eventually("nothing is left there", lambda: not pods(clusters[source]), deadline=PATIENCE)
