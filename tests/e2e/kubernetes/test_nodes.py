"""Nodes that die, are cut off or drained: the task goes on elsewhere, from its checkpoint."""

import signal

import pytest

from tests.e2e.federation import eventually
from tests.e2e.kubernetes.runs import PATIENCE, Cloud, PodRun, pods


def counted_on(run: PodRun) -> str:
    """The node `count` runs on, once it has saved a few steps that the ledger knows of."""
    run.await_said("saved 4")
    eventually(
        "a checkpoint is committed",
        lambda: run.row("SELECT 1 FROM checkpoint WHERE execution = :x"),
        deadline=PATIENCE,
    )
    return run.running_on("count")


def resumed(run: PodRun) -> list[int]:
    """The number each attempt began at, the first one left out."""
    notes = run.gates.said(run.name, "counts from")
    return [int(note.text.split()[-1]) for note in notes][1:]


@pytest.mark.fault(37)
def test_a_dead_node_costs_the_steps_since_the_checkpoint(cloud: Cloud, clusters: dict) -> None:
    alpha = clusters["alpha"]
    run = cloud.launch("node-dies", "counting", "--region", "alpha")
    host = counted_on(run)
    alpha.crash(host)
    run.await_said("counts from", count=2)
    assert resumed(run)[0] > 0
    node = eventually(
        "the second attempt is in the ledger",
        lambda: (n := run.node("count"))["phase"] == "RUNNING" and n["attempt"] == 2 and n,
        deadline=PATIENCE,
    )
    assert node["host"] != host
    assert node["avoided"] == [host]
    assert (node["user_failures"], node["system_failures"]) == (0, 1)
    run.open()
    assert run.await_end() == "SUCCEEDED"
    assert run.causes() == ["launch"]
    alpha.restart_node(host)


@pytest.mark.fault(37)
def test_a_cut_node_is_left_and_its_zombie_changes_nothing(cloud: Cloud, clusters: dict) -> None:
    alpha = clusters["alpha"]
    run = cloud.launch("node-cut", "counting", "--region", "alpha")
    host = counted_on(run)
    alpha.cut(host)
    try:
        run.await_said("counts from", count=2)
        run.open()
        assert run.await_end() == "SUCCEEDED"
        before = run.row("SELECT * FROM node_output WHERE execution = :x ORDER BY id")
    finally:
        alpha.heal(host)
    eventually("the zombie's pod is gone", lambda: not pods(alpha), deadline=PATIENCE)
    after = run.row("SELECT * FROM node_output WHERE execution = :x ORDER BY id")
    assert [tuple(row) for row in before] == [tuple(row) for row in after]
    assert run.causes() == ["launch"]


@pytest.mark.fault(38)
def test_a_drained_node_hands_over_a_fresh_checkpoint(cloud: Cloud, clusters: dict) -> None:
    alpha = clusters["alpha"]
    run = cloud.launch("node-drained", "counting", "--region", "alpha")
    host = counted_on(run)
    alpha.kubectl("cordon", host)
    try:
        alpha.kubectl(
            "drain", host, "--ignore-daemonsets", "--force", "--delete-emptydir-data",
            "--pod-selector=whimbrel.dev/managed-by=agent", "--timeout=60s",
        )  # fmt: skip
        run.await_said("counts from", count=2)
    finally:
        alpha.kubectl("uncordon", host)
    saved = [note for note in run.gates.said(run.name, "saved") if note.attempt == 1]
    assert resumed(run)[0] >= int(saved[-1].text.split()[-1]), "a save was lost"
    run.open()
    assert run.await_end() == "SUCCEEDED"
    node = run.node("count")
    assert (node["user_failures"], node["system_failures"]) == (0, 0), "a move is nobody's failure"


def test_a_pod_deleted_behind_our_back_is_the_platforms_failure(
    cloud: Cloud, clusters: dict
) -> None:
    run = cloud.launch("pod-deleted", "steps", "--region", "alpha")
    run.await_said("gate")
    alpha = clusters["alpha"]
    name = next(pod["metadata"]["name"] for pod in pods(alpha) if "gate" in pod["metadata"]["name"])
    alpha.kubectl("-n", "whimbrel", "delete", "pod", name, "--grace-period=0", "--force")
    run.await_said("gate", count=2)
    run.open()
    assert run.await_end() == "SUCCEEDED"
    node = run.node("gate")
    assert (node["attempt"], node["user_failures"], node["system_failures"]) == (2, 0, 1)


def test_a_kubelet_that_dies_and_returns_loses_nothing(cloud: Cloud, clusters: dict) -> None:
    """Its pods run on without it; what they did is told when it is back."""
    alpha = clusters["alpha"]
    run = cloud.launch("kubelet-dies", "steps", "--region", "alpha")
    run.await_said("gate")
    host = run.running_on("gate")
    alpha.signal("kubelet", signal.SIGKILL, node=host)
    run.open()
    alpha.restart("kubelet", node=host)
    assert run.await_end() == "SUCCEEDED"
    assert run.said("gate") == 1
