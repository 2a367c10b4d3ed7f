"""Whose fault the end of a pod is: the table, and that anything at all gets an owner."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from whimbrel.spec import Owner

from data_plane_agent.pods.failures import Circumstances, ended, given_up
from data_plane_agent.pods.sight import Sight, sight
from tests.data_plane_agent.pods.world import settings

SETTINGS = settings(image_seconds=300.0, lost_seconds=40.0)
QUIET = Circumstances()


def pod(*, deleting: bool = False, limit: str = "", **status: Any) -> dict[str, Any]:
    container: dict[str, Any] = {"name": "task", "image": "task:1"}
    if limit:
        container["resources"] = {"limits": {"memory": limit}}
    about: dict[str, Any] = {
        "name": "w-1",
        "uid": "u",
        "annotations": {"whimbrel.dev/execution": "x", "whimbrel.dev/node": "n"},
        "labels": {"whimbrel.dev/attempt": "1", "whimbrel.dev/epoch": "2"},
    }
    if deleting:
        about["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    spec = {"nodeName": "n1", "containers": [container]}
    return {"metadata": about, "spec": spec, "status": {"phase": "Running", **status}}


def seen(**more: Any) -> Sight:
    found = sight(pod(**more))
    assert found is not None
    return found


def exited(
    code: int, reason: str = "Error", message: str = "", started: str = "", **more: Any
) -> dict[str, Any]:
    end = {"exitCode": code, "reason": reason, "message": message, "startedAt": started}
    state = {"terminated": end}
    return {"phase": "Failed", "containerStatuses": [{"name": "task", "state": state}], **more}


def disrupted(why: str, /, **more: Any) -> dict[str, Any]:
    condition = {"type": "DisruptionTarget", "status": "True", "reason": why}
    return exited(137) | {"conditions": [condition], **more}


def waiting(reason: str, message: str = "") -> dict[str, Any]:
    state = {"waiting": {"reason": reason, "message": message}}
    return {"phase": "Pending", "containerStatuses": [{"name": "task", "state": state}]}


START = "2026-01-01T00:00:00Z"
STARTED = {"containerStatuses": [{"name": "task", "state": {"running": {"startedAt": START}}}]}
OOM = {"containerStatuses": exited(137, "OOMKilled")["containerStatuses"]}
DISK = "Pod ephemeral local storage usage exceeds the total limit of containers 10Mi."
EMPTY_DIR = 'Usage of EmptyDir volume "tmp" exceeds the limit "1Gi".'
PRESSURE = "The node was low on resource: memory. Threshold quantity: 100Mi, available: 50Mi."
SHUTDOWN = "Pod was terminated in response to imminent node shutdown."


@pytest.mark.parametrize(
    ("status", "owner", "kind"),
    [
        (exited(1), "user", "exited"),
        (exited(137, "OOMKilled"), "system", "evicted"),
        (exited(137), "system", "worker_lost"),
        (exited(143), "system", "worker_lost"),
        (exited(137, deleting=True), "system", "pod_lost"),
        (exited(0, "Completed"), "config", "image"),
        (exited(128, "StartError", "exec: python: not found"), "config", "image"),
        (disrupted("PreemptionByScheduler"), "system", "preempted"),
        (disrupted("DeletionByTaintManager"), "system", "node_lost"),
        (disrupted("EvictionByEvictionAPI"), "system", "evicted"),
        (disrupted("DeletionByPodGC"), "system", "node_lost"),
        (disrupted("TerminationByKubelet"), "system", "evicted"),
        (disrupted("ByTheNextVersion"), "system", "evicted"),
        (disrupted("EvictionByEvictionAPI", **OOM), "system", "evicted"),
        (disrupted("TerminationByKubelet", reason="Evicted", message=DISK), "user", "disk"),
        (disrupted("TerminationByKubelet", reason="Evicted", message=PRESSURE), "system",
         "evicted"),
        (disrupted("TerminationByKubelet", reason="Terminated", message=SHUTDOWN), "system",
         "shutdown"),
        ({"phase": "Failed", "reason": "Evicted", "message": EMPTY_DIR}, "user", "disk"),
        ({"phase": "Failed", "reason": "Evicted", "message": PRESSURE}, "system", "evicted"),
        ({"phase": "Failed", "reason": "DeadlineExceeded"}, "system", "not_started"),
        (STARTED | {"phase": "Failed", "reason": "DeadlineExceeded"}, "user", "timeout"),
        (exited(137, started=START) | {"reason": "DeadlineExceeded"}, "user", "timeout"),
        ({"phase": "Failed", "reason": "NodeShutdown"}, "system", "shutdown"),
        ({"phase": "Failed", "reason": "NodeLost"}, "system", "node_lost"),
        ({"phase": "Failed", "reason": "OutOfcpu"}, "system", "evicted"),
        ({"phase": "Failed", "reason": "UnexpectedAdmissionError"}, "system", "evicted"),
        ({"phase": "Running"}, "system", "pod_lost"),
    ],
)  # fmt: skip
def test_an_end_without_an_answer(status: dict[str, Any], owner: str, kind: str) -> None:
    failure = ended(seen(**status))
    assert (failure.owner, failure.kind) == (Owner(owner), kind), failure
    assert failure.message


def test_an_oom_names_the_limit_and_what_to_do() -> None:
    failure = ended(seen(limit="96Mi", **exited(137, "OOMKilled")))
    assert "96 MiB" in failure.message
    assert "limits=Resources(mem" in failure.message


def test_no_image_is_waited_for_unless_its_registry_says_that_there_is_none() -> None:
    refused = seen(**waiting("ErrImagePull", 'failed to pull "a:1": a:1: not found'))
    slow = seen(**waiting("ImagePullBackOff", "Back-off pulling image: connection refused"))
    for sees, patience in ((refused, 90), (slow, 300)):
        assert given_up(sees, Circumstances(stuck_seconds=patience - 1), SETTINGS) is None
        failure = given_up(sees, Circumstances(stuck_seconds=patience + 1), SETTINGS)
        assert failure is not None
        assert (failure.owner, failure.kind) == (Owner.CONFIG, "image")
    impatient = settings(image_seconds=5.0)
    assert given_up(refused, Circumstances(stuck_seconds=6), impatient) is not None


def test_while_it_backs_off_the_pulls_own_error_counts() -> None:
    quiet = seen(**waiting("ImagePullBackOff", 'Back-off pulling image "a:1"'))
    about = Circumstances(stuck_seconds=91, image_said="a:1: pull access denied")
    failure = given_up(quiet, about, SETTINGS)
    assert failure is not None
    assert "access denied" in failure.message


@pytest.mark.parametrize("reason", ["InvalidImageName", "ErrImageNeverPull"])
def test_what_can_never_work_is_not_waited_for(reason: str) -> None:
    failure = given_up(seen(**waiting(reason)), QUIET, SETTINGS)
    assert failure is not None
    assert (failure.owner, failure.kind) == (Owner.CONFIG, "image")


def test_a_missing_secret_is_named() -> None:
    sees = seen(**waiting("CreateContainerConfigError", 'secret "team" not found'))
    assert given_up(sees, Circumstances(stuck_seconds=59), SETTINGS) is None
    failure = given_up(sees, Circumstances(stuck_seconds=61), SETTINGS)
    assert failure is not None
    assert (failure.owner, failure.kind) == (Owner.CONFIG, "pod_config")
    assert 'secret "team" not found' in failure.message


@pytest.mark.parametrize(
    ("silent", "deleting", "lost"),
    [(0.0, True, False), (39.0, False, False), (41.0, False, True), (1.0, True, True)],
)
def test_a_silent_node(silent: float, deleting: bool, lost: bool) -> None:
    sees = seen(deleting=deleting)
    about = Circumstances(node_silent_seconds=silent)
    assert (given_up(sees, about, SETTINGS) is not None) is lost


def test_what_is_over_is_not_given_up() -> None:
    assert given_up(seen(**exited(1)), Circumstances(node_silent_seconds=99), SETTINGS) is None


REASONS = st.sampled_from([
    "", "Error", "OOMKilled", "Evicted", "StartError", "NodeLost", "OutOfcpu", "ErrImagePull",
    "TerminationByKubelet", "PreemptionByScheduler", "DeadlineExceeded", "CreateContainerError",
]) | st.text(max_size=8)  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=4,
)
STATUSES = st.fixed_dictionaries(
    {},
    optional={
        "phase": st.sampled_from(["Pending", "Running", "Succeeded", "Failed", "Unknown"]),
        "reason": REASONS,
        "message": st.text(max_size=40),
        "conditions": st.lists(
            st.fixed_dictionaries({"type": st.just("DisruptionTarget"), "status": st.just("True"),
                                   "reason": REASONS}), max_size=1) | st.none(),
        "containerStatuses": st.lists(
            st.fixed_dictionaries({
                "name": st.just("task"),
                "state": st.fixed_dictionaries({}, optional={
                    "terminated": st.fixed_dictionaries(
                        {"exitCode": st.integers(0, 255), "reason": REASONS,
                         "message": st.text(max_size=40)}) | JSON,
                    "waiting": st.fixed_dictionaries({"reason": REASONS}) | JSON,
                    "running": JSON,
                }),
            }), max_size=1) | st.none(),
    },
)  # fmt: skip


@given(STATUSES, st.booleans(), st.floats(0, 1000), st.floats(0, 1000))
def test_whatever_a_pod_shows_has_an_owner(
    status: dict[str, Any], deleting: bool, silent: float, stuck: float
) -> None:
    sees = seen(deleting=deleting, **status)
    about = Circumstances(node_silent_seconds=silent, stuck_seconds=stuck)
    failure = ended(sees)
    assert failure.owner in Owner
    assert failure.kind
    assert failure.message
    given_up(sees, about, SETTINGS)
    if sees.disrupted and failure.owner is not Owner.SYSTEM:
        assert failure.kind in ("disk", "timeout")
