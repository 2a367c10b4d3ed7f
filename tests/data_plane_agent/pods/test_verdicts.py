"""The table of ends and waits, row by row, with the words that Kubernetes really writes."""

from typing import Any

import pytest
from whimbrel.spec import Owner

from data_plane_agent.pods.codec import PREFIX
from data_plane_agent.pods.failures import (
    BAD_IMAGE_SECONDS,
    CREATE_SECONDS,
    Circumstances,
    ended,
    given_up,
)
from data_plane_agent.pods.sight import Sight, sight
from tests.data_plane_agent.pods.scene import SETTINGS


def pod(*, deleting: bool = False, **status: Any) -> Sight:
    metadata: dict[str, Any] = {
        "name": "w",
        "uid": "u",
        "annotations": {f"{PREFIX}execution": "x", f"{PREFIX}node": "n"},
        "labels": {f"{PREFIX}attempt": "1", f"{PREFIX}epoch": "1"},
    }
    if deleting:
        metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    spec = {"nodeName": "a", "containers": [{"name": "task", "image": "i"}]}
    seen = sight({"metadata": metadata, "spec": spec, "status": {"phase": "Failed", **status}})
    assert seen is not None
    return seen


def exited(code: int, reason: str = "Error", message: str = "") -> dict[str, Any]:
    end = {"exitCode": code, "reason": reason, "message": message}
    return {"containerStatuses": [{"name": "task", "state": {"terminated": end}}]}


def waiting(reason: str, message: str = "") -> dict[str, Any]:
    state = {"waiting": {"reason": reason, "message": message}}
    return {"phase": "Pending", "containerStatuses": [{"name": "task", "state": state}]}


def target(reason: str) -> dict[str, Any]:
    return {"conditions": [{"type": "DisruptionTarget", "status": "True", "reason": reason}]}


def evicted(message: str) -> dict[str, Any]:
    return {"reason": "Evicted", "message": message}


EMPTY_DIR = 'Usage of EmptyDir volume "work" exceeds the limit "1Gi". '
ONE = 'Container task exceeded its local ephemeral storage limit "1Gi". '
ALL = "Pod ephemeral local storage usage exceeds the total limit of containers 1Gi. "
LOW_DISK = (
    "The node was low on resource: ephemeral-storage. Threshold quantity: 1Gi, available: 1Mi. "
    "Container task was using 1Gi, request is 0, has larger consumption of ephemeral-storage. "
)
LOW_DISK_BEFORE_1_22 = (
    "The node was low on resource: ephemeral-storage. Container task was using 1Gi, which exceeds "
    "its request of 0. "
)
USER, SYSTEM, CONFIG = Owner.USER, Owner.SYSTEM, Owner.CONFIG


@pytest.mark.parametrize(
    ("status", "owner", "kind"),
    [
        (target("PreemptionByScheduler"), SYSTEM, "preempted"),
        (target("DeletionByTaintManager"), SYSTEM, "node_lost"),
        (target("EvictionByEvictionAPI"), SYSTEM, "evicted"),
        (target("DeletionByPodGC"), SYSTEM, "node_lost"),
        (target("TerminationByKubelet"), SYSTEM, "evicted"),
        (target("SomethingNew"), SYSTEM, "evicted"),
        (target("PreemptionByScheduler") | exited(137), SYSTEM, "preempted"),
        (target("EvictionByEvictionAPI") | exited(137, "OOMKilled"), SYSTEM, "evicted"),
        (target("TerminationByKubelet") | evicted(ALL), USER, "disk"),
        (target("TerminationByKubelet") | {"reason": "NodeShutdown"}, SYSTEM, "shutdown"),
        (evicted("The node was low on resource: memory. "), SYSTEM, "evicted"),
        (evicted(EMPTY_DIR), USER, "disk"),
        (evicted(ONE), USER, "disk"),
        (evicted(LOW_DISK), SYSTEM, "evicted"),
        (evicted(LOW_DISK_BEFORE_1_22), SYSTEM, "evicted"),
        ({"reason": "DeadlineExceeded"}, SYSTEM, "not_started"),
        ({"reason": "Terminated"}, SYSTEM, "shutdown"),
        ({"reason": "NodeLost"}, SYSTEM, "node_lost"),
        ({"reason": "OutOfcpu"}, SYSTEM, "evicted"),
        ({"reason": "OutOfnvidia.com/gpu"}, SYSTEM, "evicted"),
        ({"reason": "UnexpectedAdmissionError"}, SYSTEM, "evicted"),
        ({"reason": "NodeAffinity"}, SYSTEM, "evicted"),
        (exited(137, "OOMKilled"), SYSTEM, "evicted"),
        (exited(128, "StartError"), CONFIG, "image"),
        (exited(127), CONFIG, "image"),
        (exited(137), SYSTEM, "worker_lost"),
        (exited(143), SYSTEM, "worker_lost"),
        (exited(137) | {"deleting": True}, SYSTEM, "pod_lost"),
        (exited(0, "Completed"), CONFIG, "image"),
        (exited(3), USER, "exited"),
        ({}, SYSTEM, "pod_lost"),
        ({"phase": "Running"}, SYSTEM, "pod_lost"),
    ],
)
def test_ends(status: dict[str, Any], owner: Owner, kind: str) -> None:
    failure = ended(pod(**status))
    assert (failure.owner, failure.kind) == (owner, kind), failure
    assert failure.message


NOT_FOUND = 'failed to resolve reference "r/x:1": r/x:1: not found'
RUNS = {"phase": "Running"}
LOST, IMAGE, START = SETTINGS.lost_seconds, SETTINGS.image_seconds, SETTINGS.start_seconds


@pytest.mark.parametrize(
    ("status", "about", "kind"),
    [
        (RUNS, Circumstances(), None),
        (RUNS, Circumstances(node_silent_seconds=LOST), None),
        (RUNS, Circumstances(node_silent_seconds=LOST + 1), "node_lost"),
        (RUNS | {"deleting": True}, Circumstances(node_silent_seconds=0.1), "node_lost"),
        (RUNS | {"deleting": True}, Circumstances(), None),
        (waiting("ContainerCreating"), Circumstances(stuck_seconds=1e6), None),
        (waiting("ContainerCreating"), Circumstances(unstarted_seconds=START), None),
        (waiting("ContainerCreating"), Circumstances(unstarted_seconds=START + 1), "not_started"),
        ({"phase": "Pending"}, Circumstances(unstarted_seconds=START + 1), "not_started"),
        (waiting("ErrImagePull"), Circumstances(unstarted_seconds=START + 1), None),
        (waiting("InvalidImageName"), Circumstances(), "image"),
        (waiting("ImagePullBackOff"), Circumstances(stuck_seconds=IMAGE), None),
        (waiting("ImagePullBackOff"), Circumstances(stuck_seconds=IMAGE + 1), "image"),
        (waiting("ErrImagePull", NOT_FOUND), Circumstances(stuck_seconds=BAD_IMAGE_SECONDS), None),
        (
            waiting("ImagePullBackOff"),
            Circumstances(stuck_seconds=BAD_IMAGE_SECONDS + 1, image_said=NOT_FOUND),
            "image",
        ),
        (
            waiting("ErrImagePull", "i/o timeout"),
            Circumstances(stuck_seconds=BAD_IMAGE_SECONDS + 1),
            None,
        ),
        (
            waiting("CreateContainerConfigError"),
            Circumstances(stuck_seconds=CREATE_SECONDS),
            None,
        ),
        (
            waiting("CreateContainerError"),
            Circumstances(stuck_seconds=CREATE_SECONDS + 1),
            "pod_config",
        ),
        (exited(1), Circumstances(node_silent_seconds=1e6), None),
    ],
)
def test_waits(status: dict[str, Any], about: Circumstances, kind: str | None) -> None:
    failure = given_up(pod(**status), about, SETTINGS)
    assert (failure and failure.kind) == kind
    if failure is not None:
        assert failure.owner is (SYSTEM if kind in ("node_lost", "not_started") else CONFIG)
