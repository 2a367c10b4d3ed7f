"""Who may share a pod, who gets which task, and how many pods are worth making."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from whimbrel.spec import Interface, Resources, TaskSpec

from data_plane_agent.launcher import Attempt, AttemptKey
from data_plane_agent.warm.door import Door, Line
from data_plane_agent.warm.pool import (
    AHEAD,
    Pool,
    PoolKey,
    Record,
    WarmPod,
    frame_of,
    reads_files,
)

NOTHING = Resources()
TASK = TaskSpec("flow.f", "flow:f", "b1", Interface(), warm=True)


def attempt(node: str = "n", **changes: Any) -> Attempt:
    task = replace(TASK, **changes)
    key = AttemptKey("p/d/run", node, 1, 7)
    return Attempt(key, task, {}, f"digest {node}", "p", "d", NOTHING, NOTHING, 0.0)


def record(pool: Pool, node: str, entry: str = "flow:f") -> Record:
    made = attempt(node, entry_point=entry)
    return Record(made.key, made.input_digest, pool, made)


def pool(*, pods: int, waiting: Sequence[str] = (), fast: Sequence[str] = ()) -> Pool:
    """`waiting` are entries, one for each task that waits; those of `fast` are short."""
    made = Pool(PoolKey.of(attempt()))
    door = Door(token_of=lambda _pool, _pod: None, heard=lambda _l, _m: None, lost=lambda _l: None)
    for index in range(pods):
        pod = WarmPod(f"w{index}", made, "token", 0.0, line=Line(door), ready=True)
        made.pods[pod.name] = pod
    for entry in fast:
        made.lane(entry).seconds = 0.001
    for index, entry in enumerate(waiting):
        made.add(record(made, f"n{index}", entry))
    return made


def dealt(made: Pool) -> list[tuple[str, str]]:
    return [(pod.name, one.key.node) for pod, one in made.deal()]


def test_a_key_comes_back_from_its_text() -> None:
    one = attempt(environment={"b": "1", "a": "2"}, secrets=("s",), container_image="image")
    key = PoolKey.of(replace(one, requests=Resources(cpu=0.5, mem_bytes=7)))
    assert PoolKey.parse(key.text) == key
    assert PoolKey.parse(key.text).id == key.id
    with pytest.raises(ValueError, match="not a pool"):
        PoolKey.parse("{}")


@pytest.mark.parametrize(
    "other",
    [
        attempt(bundle="b2"),
        attempt(environment={"a": "1"}),
        attempt(container_image="other"),
        attempt(secrets=("s",)),
        replace(attempt(), project="q"),
        replace(attempt(), domain="e"),
        replace(attempt(), requests=Resources(cpu=1.0)),
        replace(attempt(), limits=Resources(mem_bytes=1)),
    ],
)
def test_what_differs_in_anything_shares_no_pod(other: Attempt) -> None:
    assert PoolKey.of(other).id != PoolKey.of(attempt()).id


def test_another_task_of_the_same_code_shares_it() -> None:
    other = attempt(node="m", name="flow.g", entry_point="flow:g", timeout_seconds=3.0)
    assert PoolKey.of(other) == PoolKey.of(attempt())


def test_a_pool_holds_runs_of_its_own_project_and_domain() -> None:
    key = PoolKey.of(attempt())
    assert key.holds(AttemptKey("p/d/run", "n", 1, 1))
    assert not key.holds(AttemptKey("p/dd/run", "n", 1, 1))
    assert not key.holds(AttemptKey("pp/d/run", "n", 1, 1))


def test_one_task_for_each_pod_the_lanes_in_turn() -> None:
    made = pool(pods=3, waiting=["a", "a", "a", "b"])
    assert dealt(made) == [("w0", "n0"), ("w1", "n3"), ("w2", "n1")]
    assert made.waiting == 1
    assert dealt(made) == []


def test_short_ones_are_handed_out_ahead() -> None:
    made = pool(pods=1, waiting=["a"] * 20, fast=["a"])
    assert len(dealt(made)) == AHEAD
    assert dealt(made) == []
    (pod,) = made.pods.values()
    for seq in list(pod.assigned)[: AHEAD // 2]:
        del pod.assigned[seq]
    assert len(dealt(made)) == AHEAD // 2
    assert list(pod.assigned) == list(range(5, 13))


def test_nothing_waits_behind_a_long_one() -> None:
    made = pool(pods=1, waiting=["long", *["a"] * 5], fast=["a"])
    assert dealt(made) == [("w0", "n0")]


def test_nothing_is_handed_out_ahead_while_something_is_asked_back() -> None:
    made = pool(pods=1, waiting=["a"] * 20, fast=["a"])
    (pod,) = made.pods.values()
    made.deal()
    for seq in list(pod.assigned)[1:]:
        del pod.assigned[seq]
    pod.asked_back = AHEAD
    assert dealt(made) == []


def test_a_pod_that_leaves_or_is_away_or_not_ready_gets_nothing() -> None:
    made = pool(pods=3, waiting=["a"] * 3)
    away, leaving, unready = made.pods.values()
    away.line, leaving.leaving, unready.ready = None, True, False
    assert dealt(made) == []


def test_how_many_pods_are_worth_making() -> None:
    assert pool(pods=0).lacking(4) == 0
    assert pool(pods=0, waiting=["a"]).lacking(4) == 1
    assert pool(pods=0, waiting=["a"] * 9).lacking(4) == 4
    assert pool(pods=1, waiting=["a"] * 100, fast=["a"]).lacking(4) == 0
    assert pool(pods=1, waiting=["a"] * 2000, fast=["a"]).lacking(4) == 1
    busy = pool(pods=1, waiting=["a", "a"])
    busy.deal()
    assert busy.lacking(4) == 1
    assert busy.lacking(1) == 0


def test_who_has_nothing_to_do_for_long_is_superfluous() -> None:
    made = pool(pods=3, waiting=["a"])
    made.deal()
    busy, idle, fresh = made.pods.values()
    busy.idle_since = idle.idle_since = 0.0
    fresh.idle_since = 50.0
    assert made.superfluous(100.0, idle_seconds=60.0) == [idle]


def test_given_back_ones_come_first_again_in_their_order() -> None:
    made = pool(pods=1, waiting=["a"] * 6, fast=["a"])
    (pod,) = made.pods.values()
    made.deal()
    for one in reversed(list(pod.assigned.values())[1:]):
        made.add(one, first=True)
    pod.assigned.clear()
    assert [node for _, node in dealt(made)] == ["n1", "n2", "n3", "n4", "n5"]


def test_cancelled_ones_leave_their_row() -> None:
    made = pool(pods=1)
    one, two = record(made, "one"), record(made, "two")
    made.add(one)
    made.add(two)
    made.remove(one)
    made.remove(one)
    assert dealt(made) == [("w0", "two")]
    made.add(one)
    assert made.drain() == [one]
    assert made.waiting == 0


def test_a_frame_is_what_the_pod_reads() -> None:
    made = pool(pods=1)
    one = record(made, "n")
    one.seq, one.folder = 4, "p/d/run/n/1/7/abc"
    frame = frame_of(one, attempt())
    assert frame["meta"] == {
        "k": ["p/d/run", "n", 1, 7],
        "d": "digest n",
        "timeout": 0.0,
        "f": "p/d/run/n/1/7/abc",
    }
    assert (frame["seq"], frame["entry"], frame["checkpoint"]) == (4, "flow:f", None)


def test_whether_inputs_hold_files() -> None:
    file = {"$artifact": {"uri": "s3://b/k"}}
    assert not reads_files({"x": 1, "y": [1, {"z": "text"}]})
    assert reads_files({"x": [1, {"y": file}]})
