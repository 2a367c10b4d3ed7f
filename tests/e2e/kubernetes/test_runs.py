"""Runs in pods that nothing disturbs, and tasks that end badly by their own doing."""

import base64

import pytest

from tests.e2e.federation import eventually
from tests.e2e.kubernetes.runs import PATIENCE, Cloud, await_no_pods, pods


def test_a_run_arrives_and_leaves_nothing_behind(cloud: Cloud, clusters: dict) -> None:
    run = cloud.launch("plain", "files")
    run.await_said("gate")
    run.open()
    assert run.await_end() == "SUCCEEDED"
    assert run.execution["outputs"] == {"o0": 21 * 50_000 + 21}
    assert run.causes() == ["launch"]
    for cluster in clusters.values():
        await_no_pods(cluster)


def test_pods_are_what_a_security_team_wants(cloud: Cloud, clusters: dict) -> None:
    run = cloud.launch("secured", "steps")
    run.await_said("gate")
    cluster = clusters[run.execution["cluster"]]
    spec = next(pod["spec"] for pod in pods(cluster) if "gate" in pod["metadata"]["name"])
    container = spec["containers"][0]
    assert spec["automountServiceAccountToken"] is False
    assert spec["restartPolicy"] == "Never"
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert container["resources"]["requests"]["cpu"] == "50m"
    keys = base64.b64encode(b"secret").decode()
    assert not any(
        word in str(variable)
        for variable in container["env"]
        for word in (keys, "AWS_SECRET", "store_secret")
    )
    run.open()
    assert run.await_end() == "SUCCEEDED"


def test_logs_are_live_while_a_pod_runs_and_kept_when_it_is_gone(
    cloud: Cloud, clusters: dict
) -> None:
    run = cloud.launch("talkative", "steps")
    run.await_said("gate")

    def log() -> str:
        return cloud.federation.whimbrel("execution", "logs", run.name, check=False).stdout

    eventually("the log of a running pod is shown", lambda: "the gate is reached" in log())
    assert "the gate is open" not in log()
    run.open()
    assert run.await_end() == "SUCCEEDED"
    await_no_pods(clusters[run.execution["cluster"]])
    assert "the gate is open" in log()


@pytest.mark.parametrize(
    ("workflow", "owner", "kind"),
    [
        ("raising", "user", "raised"),
        ("growing", "user", "oom"),
        ("hanging", "user", "timeout"),
        ("unbuilt", "config", "image"),
    ],
)
def test_a_failure_has_an_owner(cloud: Cloud, workflow: str, owner: str, kind: str) -> None:
    run = cloud.launch(workflow, workflow, door=False)
    assert run.await_end() == "FAILED"
    error = run.execution["error"]
    assert (error["owner"], run.execution["reason"]) == (owner, kind), error
    assert error["message"]
    if workflow == "raising":
        shown = cloud.federation.whimbrel("execution", "logs", run.name).stdout
        assert "about to fail" in shown


def test_what_fits_nowhere_waits_and_says_so(cloud: Cloud) -> None:
    run = cloud.launch("enormous", "too_large", door=False)
    run.await_phase("WAITING")
    assert run.execution["reason"] == "no_capacity"
    verdicts = run.execution["placements"][-1]["verdicts"]
    assert {verdict["rule"] for verdict in verdicts} == {"fits"}
    cloud.federation.whimbrel("execution", "cancel", run.name)


def test_a_cancelled_run_leaves_no_pod_though_it_ignores_sigterm(
    cloud: Cloud, clusters: dict
) -> None:
    run = cloud.launch("stubborn", "stubbornly")
    run.await_said("stubborn")
    cluster = clusters[run.execution["cluster"]]
    cloud.federation.whimbrel("execution", "cancel", run.name)
    assert run.await_end() == "ABORTED"
    await_no_pods(cluster, deadline=PATIENCE)


@pytest.mark.fault(34)
def test_two_hundred_pods_at_once(cloud: Cloud) -> None:
    run = cloud.launch("crowd", "many", door=False)
    eventually("the crowd is done", lambda: run.phase() == "SUCCEEDED", deadline=900)
    assert run.execution["outputs"] == {"o0": sum(x * x for x in range(200))}
    assert {node["attempt"] for node in run.execution["nodes"]} == {1}
