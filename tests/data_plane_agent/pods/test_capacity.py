"""What a cluster has and what is free of it, and the amounts it is written in."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from whimbrel.spec import Resources

from data_plane_agent.pods.capacity import NodeSight, free, largest, node_sight, requests_of
from data_plane_agent.pods.codec import manifest
from data_plane_agent.pods.orders import Order
from data_plane_agent.pods.quantities import number
from tests.data_plane_agent.pods.scene import SETTINGS, attempt

GPU = "nvidia.com/gpu"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2", 2), ("0.5", 0.5), ("500m", 0.5), ("1k", 1000), ("1Ki", 1024), ("1.5Gi", 1.5 * 2**30),
        ("3M", 3e6), ("2T", 2e12), ("1Pi", 2**50), ("1E", 1e18), ("1Ei", 2**60), (".5", 0.5),
        (4, 4), ("", 0), (None, 0), ("many", 0), ("1Qi", 0), ("-1", 0), ([], 0), ("nan", 0),
        ("inf", 0), (True, 0), ("1e3", 1000), ("2E2", 200), ("100u", 1e-4), ("5n", 5e-9),
    ],
)  # fmt: skip
def test_amounts(text: object, value: float) -> None:
    assert number(text) == pytest.approx(value)


@given(st.text() | st.none() | st.integers() | st.floats())
def test_amounts_are_never_negative(text: object) -> None:
    assert 0 <= number(text) < float("inf")


def node(*, cpu: str = "4", memory: str = "8Gi", ready: str = "True", **more: Any) -> NodeSight:
    conditions = [
        {"type": "MemoryPressure", "status": "False"},
        {"type": "Ready", "status": ready, "lastTransitionTime": "2026-01-01T00:00:00Z"},
    ]
    has = {"cpu": cpu, "memory": memory, GPU: more.pop("gpu", "0")}
    return node_sight(
        {
            "metadata": {"name": "a"},
            "spec": more,
            "status": {"conditions": conditions, "allocatable": has},
        },
        gpu_resource=GPU,
    )


def test_nodes() -> None:
    assert node(gpu="2").allocatable == Resources(cpu=4, mem_bytes=8 * 2**30, gpu=2)
    assert node().usable
    for other in (node(unschedulable=True), node(ready="False"), node(ready="Unknown")):
        assert not other.usable
    assert not node(unschedulable=True).silent_since_ns
    assert node(ready="Unknown").silent_since_ns == 1767225600 * 10**9
    bare = node_sight({"metadata": {"name": "new"}}, gpu_resource=GPU)
    assert (bare.name, bare.usable) == ("new", False)


def test_a_cluster() -> None:
    nodes = [node(cpu="2", memory="16Gi"), node(cpu="8", memory="4Gi", gpu="1"),
             node(cpu="64", ready="Unknown"), node(cpu="64", unschedulable=True)]  # fmt: skip
    gib = 2**30
    assert largest(nodes) == Resources(cpu=8, mem_bytes=16 * gib, gpu=1)
    assert free(nodes, []) == Resources(cpu=10, mem_bytes=20 * gib, gpu=1)
    asked = [Resources(cpu=1, mem_bytes=gib)] * 3
    assert free(nodes, asked) == Resources(cpu=7, mem_bytes=17 * gib, gpu=1)
    assert free(nodes, [Resources(cpu=100, mem_bytes=10**15, gpu=5)]) == Resources()
    assert largest([]) == free([], []) == Resources()


def test_a_pod_asks_for_what_its_attempt_asks_for() -> None:
    order = Order("url", "0" * 64, "d", "f")
    asked = Resources(cpu=1.5, mem_bytes=2**30, gpu=2, ephemeral_storage_bytes=77)
    pod = manifest(attempt(requests=asked), order, SETTINGS)
    assert requests_of(pod, gpu_resource=GPU) == asked
    assert requests_of({}, gpu_resource=GPU) == Resources()
