"""A pod read from what the API server tells, however odd that is."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from data_plane_agent.launcher import AttemptKey
from data_plane_agent.pods.capacity import node_sight
from data_plane_agent.pods.codec import PREFIX, manifest
from data_plane_agent.pods.orders import Order
from data_plane_agent.pods.sight import nanoseconds, sight
from tests.data_plane_agent.pods.scene import SETTINGS, attempt

ORDER = Order("https://store/order?signed", "0" * 64, "order-digest", "run/n/1/1/ab")


def pod(**status: Any) -> dict[str, Any]:
    made = manifest(attempt(avoid=("a", "b")), ORDER, SETTINGS)
    made["metadata"] |= {"uid": "u1", "creationTimestamp": "2026-01-01T00:00:00Z"}
    return made | {"status": status}


def test_a_new_pod() -> None:
    one = attempt()
    seen = sight(pod())
    assert seen is not None
    assert (seen.key, seen.uid, seen.phase) == (one.key, "u1", "Pending")
    assert (seen.input_digest, seen.order_digest) == (one.input_digest, "order-digest")
    assert (seen.folder, seen.avoid, seen.image) == ("run/n/1/1/ab", ("a", "b"), "whimbrel:1")
    assert seen.created_ns == 1767225600 * 10**9
    assert (seen.running, seen.over, seen.deleting_ns, seen.unschedulable) == (False, False, 0, "")


def test_a_pod_that_runs_and_ends() -> None:
    running = {"running": {"startedAt": "2026-01-01T00:00:05Z"}}
    others = {"name": "istio", "state": {"terminated": {"exitCode": 1}}}
    seen = sight(pod(phase="Running", containerStatuses=[others, {"name": "task",
                                                                  "state": running}]))  # fmt: skip
    assert seen is not None
    assert seen.running
    assert not seen.over
    end = {"exitCode": 3, "reason": "Error", "message": "m", "startedAt": "2026-01-01T00:00:05Z",
           "finishedAt": "2026-01-01T00:00:06Z"}  # fmt: skip
    seen = sight(
        pod(phase="Running", containerStatuses=[{"name": "task", "state": {"terminated": end}}])
    )
    assert seen is not None
    assert seen.over
    assert not seen.running
    assert seen.ended is not None
    assert (seen.ended.exit_code, seen.ended.message) == (3, "m")
    assert seen.ended.ended_ns - seen.started_ns == 10**9


def test_a_pod_without_room() -> None:
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
    seen = sight(pod(conditions=[condition | {"message": "0/3 nodes"}]))
    assert seen is not None
    assert seen.unschedulable == "0/3 nodes"
    gated = condition | {"reason": "SchedulingGated", "message": "0 of 1 gates"}
    seen = sight(pod(conditions=[gated]))
    assert seen is not None
    assert seen.unschedulable == "SchedulingGated: 0 of 1 gates"
    seen = sight(pod(conditions=[condition | {"status": "True"}]))
    assert seen is not None
    assert not seen.unschedulable


def test_image_errors_take_turns() -> None:
    def stuck(reason: str) -> str:
        state = {"waiting": {"reason": reason}}
        seen = sight(pod(containerStatuses=[{"name": "task", "state": state}]))
        assert seen is not None
        return seen.stuck_on

    assert stuck("ErrImagePull") == stuck("ImagePullBackOff") == "image"
    assert stuck("CreateContainerConfigError") == "CreateContainerConfigError"
    assert stuck("") == ""


def test_what_is_none_of_ours() -> None:
    for field, name in (("annotations", "execution"), ("annotations", "node"),
                        ("labels", "attempt"), ("labels", "epoch")):  # fmt: skip
        other = pod()
        del other["metadata"][field][PREFIX + name]
        assert sight(other) is None
    other = pod()
    other["metadata"]["labels"][f"{PREFIX}epoch"] = "soon"
    assert sight(other) is None
    assert sight({}) is None


def test_times() -> None:
    assert nanoseconds("1970-01-01T00:00:01Z") == 10**9
    assert nanoseconds("1970-01-01T00:00:01.500000Z") == 1_500_000_000
    for text in (None, "", "now", 5, "2026-13-01T00:00:00Z", [], "9999999"):
        assert nanoseconds(text) == 0


ODD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inside: (
        st.lists(inside, max_size=3) | st.dictionaries(st.text(max_size=8), inside, max_size=3)
    ),
    max_leaves=6,
)
PLACES = st.sampled_from([
    ("metadata", "annotations"), ("metadata", "creationTimestamp"), ("metadata", "labels"),
    ("metadata", "deletionTimestamp"), ("metadata", "uid"),
    ("spec",), ("spec", "containers"), ("spec", "nodeName"), ("spec", "containers", 0, "resources"),
    ("status",), ("status", "phase"), ("status", "conditions"), ("status", "conditions", 0),
    ("status", "conditions", 0, "type"),
    ("status", "containerStatuses"), ("status", "containerStatuses", 0),
    ("status", "containerStatuses", 0, "state"), ("status", "message"), ("status", "reason"),
    ("status", "containerStatuses", 0, "state", "terminated"),
    ("status", "containerStatuses", 0, "state", "terminated", "exitCode"),
    ("status", "containerStatuses", 0, "state", "running"),
])  # fmt: skip


@given(PLACES, ODD)
def test_odd_pods_do_no_harm(place: tuple[str | int, ...], odd: Any) -> None:
    end = {"exitCode": 1, "startedAt": "2026-01-01T00:00:00Z", "reason": "Error"}
    whole = pod(
        phase="Failed",
        conditions=[{"type": "PodScheduled", "status": "True"}],
        containerStatuses=[{"name": "task", "state": {"terminated": end}}],
    )
    inside: Any = whole
    for step in place[:-1]:
        inside = inside[step]
    inside[place[-1]] = odd
    seen = sight(whole)
    if seen is not None:
        assert isinstance(seen.key, AttemptKey)
        hash(seen)


NODE_PLACES = st.sampled_from([
    ("metadata",), ("spec",), ("status",), ("status", "conditions"), ("status", "conditions", 0),
    ("status", "allocatable"), ("status", "allocatable", "cpu"),
])  # fmt: skip


@given(NODE_PLACES, ODD)
def test_odd_nodes_do_no_harm(place: tuple[str | int, ...], odd: Any) -> None:
    node: Any = {
        "metadata": {"name": "a"},
        "spec": {},
        "status": {"conditions": [{"type": "Ready", "status": "True"}],
                   "allocatable": {"cpu": "1", "memory": "1Gi"}},
    }  # fmt: skip
    inside = node
    for step in place[:-1]:
        inside = inside[step]
    inside[place[-1]] = odd
    node_sight(node, gpu_resource="nvidia.com/gpu")
