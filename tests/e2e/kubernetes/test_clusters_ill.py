"""Clusters whose API server or etcd is ill, that have no room, or whose agent dies."""

import signal

import pytest

from tests.e2e.federation import eventually
from tests.e2e.kubernetes.runs import PATIENCE, Cloud, await_no_pods, hold_for, pods

QUOTA = """
apiVersion: v1
kind: ResourceQuota
metadata: {name: nothing-fits, namespace: whimbrel}
spec: {hard: {pods: "0"}}
"""


@pytest.mark.fault(34)
def test_a_frozen_api_server_stops_no_running_task_and_gets_no_new_one(
    cloud: Cloud, clusters: dict
) -> None:
    alpha = clusters["alpha"]
    run = cloud.launch("api-frozen", "steps", "--region", "alpha")
    run.await_said("gate")
    alpha.signal("apiserver", signal.SIGSTOP)
    try:
        cloud.await_ill("alpha")
        other = cloud.launch("not-there", "steps")
        other.await_said("gate")
        assert other.execution["cluster"] == "beta"
        other.open()
        assert other.await_end() == "SUCCEEDED"
        run.open()  # the pod ends while nobody can watch it
        hold_for(20)
    finally:
        alpha.signal("apiserver", signal.SIGCONT)
    assert run.await_end() == "SUCCEEDED"
    assert (run.said("gate"), run.causes()) == (1, ["launch"])


@pytest.mark.fault(34, 35)
def test_an_api_server_that_is_killed_and_one_whose_etcd_restarts(
    cloud: Cloud, clusters: dict
) -> None:
    alpha = clusters["alpha"]
    for name, part in (("api-killed", "apiserver"), ("etcd-killed", "etcd")):
        run = cloud.launch(name, "steps", "--region", "alpha")
        run.await_said("gate")
        alpha.signal(part, signal.SIGKILL)
        run.open()
        alpha.restart(part)
        assert run.await_end() == "SUCCEEDED"
        assert (run.said("gate"), run.said("last"), run.causes()) == (1, 1, ["launch"])


@pytest.mark.fault(40)
def test_a_full_cluster_gives_the_run_back(cloud: Cloud, clusters: dict) -> None:
    alpha = clusters["alpha"]
    alpha.kubectl("apply", "-f", "-", stdin=QUOTA)
    try:
        run = cloud.launch("no-quota", "steps", "--region", "alpha", "--region", "beta")
        run.await_said("gate")
        assert run.execution["cluster"] == "beta"
        story = [line["text"] for line in run.execution["timeline"]]
        assert any("quota" in line for line in story), story
        run.open()
        assert run.await_end() == "SUCCEEDED"
    finally:
        alpha.kubectl("delete", "-f", "-", stdin=QUOTA)
    await_no_pods(alpha)


@pytest.mark.fault(36)
def test_an_agent_killed_between_create_and_record_starts_no_second_pod(
    cloud: Cloud, clusters: dict
) -> None:
    """The agent dies by its own hand right after the API server has taken the pod."""
    cloud.fuse.unlink()
    run = cloud.launch("create-unrecorded", "steps", "--region", "alpha")
    eventually(
        "the agent has died",
        lambda: "agent/alpha" not in cloud.federation.sandbox["processes"],
        deadline=PATIENCE,
    )
    cloud.federation.sandbox_command("heal", "alpha")
    run.await_said("gate")
    run.open()
    assert run.await_end() == "SUCCEEDED"
    starts = [(n.node, n.attempt, n.epoch) for n in run.gates.said(run.name, "")]
    assert len(starts) == len(set(starts)), f"an attempt has run twice: {starts}"


def test_an_agent_that_restarts_adopts_its_pods(cloud: Cloud, clusters: dict) -> None:
    run = cloud.launch("agent-restarts", "steps", "--region", "alpha")
    run.await_said("gate")
    uids = {pod["metadata"]["uid"] for pod in pods(clusters["alpha"])}
    cloud.federation.signal("agent/alpha", signal.SIGKILL)
    cloud.federation.sandbox_command("heal", "alpha")
    run.open()
    assert run.await_end() == "SUCCEEDED"
    assert uids
    assert run.said("gate") == 1


@pytest.mark.fault(5)
def test_a_cut_cluster_is_fenced_and_its_pods_are_deleted_when_it_returns(
    cloud: Cloud, clusters: dict
) -> None:
    run = cloud.launch("cluster-cut", "steps", "--region", "alpha", "--region", "beta")
    run.await_said("gate")
    assert run.execution["cluster"] == "alpha"
    cloud.federation.sandbox_command("cut", "alpha")
    run.await_said("gate", count=2)
    assert run.execution["cluster"] == "beta"
    assert pods(clusters["alpha"]), "silence alone kills no pod"
    cloud.federation.sandbox_command("heal", "alpha")
    await_no_pods(clusters["alpha"])
    run.open()
    assert run.await_end() == "SUCCEEDED"
    assert run.causes() == ["launch", "failover"]
    assert (run.said("first"), run.said("last")) == (1, 1)
