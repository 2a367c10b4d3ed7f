"""The graph's decisions: order, once each, retries, failure policies, reuse (I10)."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from whimbrel.spec import Artifact, Failure, OutputRef, Owner, WorkflowSpec

from data_plane_agent.dag import (
    Decision,
    Fail,
    Graph,
    Known,
    NodeFailed,
    NodeSucceeded,
    Start,
    Succeed,
    Unreadable,
    advance,
    begin,
)
from tests.data_plane_agent.graphs import chain, fan, graph

RAISED = Failure(Owner.USER, "raised", "no")
LOST = Failure(Owner.SYSTEM, "worker_lost", "gone")


@st.composite
def edges(draw: st.DrawFn) -> dict[str, list[str]]:
    count = draw(st.integers(1, 12))
    names = [f"n{i}" for i in range(count)]
    return {
        name: draw(st.lists(st.sampled_from(names[:i]), unique=True)) if i else []
        for i, name in enumerate(names)
    }


def value(start: Start) -> dict[str, Any]:
    return {"o0": start.input_digest[:8]}


def starts(decisions: list[Decision]) -> dict[str, Start]:
    return {one.node: one for one in decisions if isinstance(one, Start)}


def finish(
    spec: WorkflowSpec, known: dict[str, Known], pick: Any
) -> tuple[list[str], dict[str, Known], list[Decision]]:
    """Runs to the end, `pick`ing which running node completes; starts, outputs, last decisions."""
    state, decisions = begin(Graph.of(spec), {}, known=known)
    running: dict[str, Start] = {}
    order: list[str] = []
    made = dict(known)
    while True:
        for node, start in starts(decisions).items():
            assert node not in order, "started twice"
            order.append(node)
            running[node] = start
        if not running:
            return order, made, decisions
        node = pick(sorted(running))
        start = running.pop(node)
        made[node] = Known(value(start), start.input_digest)
        decisions = advance(state, NodeSucceeded(node, start.attempt, value(start)))


@given(edges(), st.data())
def test_every_node_once_and_never_before_its_inputs(
    table: dict[str, list[str]], data: st.DataObject
) -> None:
    done: list[str] = []

    def pick(running: list[str]) -> str:
        for node in running:
            assert set(table[node]) <= set(done)
        node = data.draw(st.sampled_from(running))
        done.append(node)
        return node

    order, _, last = finish(graph(table), {}, pick)
    assert sorted(order) == sorted(table)
    assert any(isinstance(one, Succeed) for one in last)


@given(edges(), st.data())
def test_a_resumed_run_repeats_nothing_and_ends_the_same(
    table: dict[str, list[str]], data: st.DataObject
) -> None:
    spec = graph(table)
    _, whole, last = finish(spec, {}, lambda running: running[0])
    # Any subset may be live: what is declared unreachable is so with everything made from it.
    lost: set[str] = set()
    for node, before in table.items():
        if lost & set(before) or data.draw(st.booleans()):
            lost.add(node)
    kept = {node: known for node, known in whole.items() if node not in lost}
    order, again, last_again = finish(spec, kept, lambda running: running[-1])
    assert set(order) == lost
    assert again == whole
    assert [one for one in last if isinstance(one, Succeed)] == [
        one for one in last_again if isinstance(one, Succeed)
    ]


@given(edges(), st.data())
def test_an_output_of_other_inputs_is_not_kept(
    table: dict[str, list[str]], data: st.DataObject
) -> None:
    spec = graph(table)
    _, whole, _ = finish(spec, {}, lambda running: running[0])
    bad = data.draw(st.sampled_from(sorted(table)))
    known = {**whole, bad: Known({"o0": "other"}, "made from something else")}
    order, again, _ = finish(spec, known, lambda running: running[0])
    # It runs again; since it makes the same as before, everything below is kept.
    assert order == [bad]
    assert again == whole


def test_defaults_and_inputs_reach_the_nodes() -> None:
    spec = chain(2)
    _, decisions = begin(Graph.of(spec), {})
    assert starts(decisions)["n0"].inputs == {"x": 7, "before": []}
    state, decisions = begin(Graph.of(spec), {"x": 1})
    first = starts(decisions)["n0"]
    assert first.inputs["x"] == 1
    after = starts(advance(state, NodeSucceeded("n0", first.attempt, {"o0": "v"})))
    assert after["n1"].inputs == {"x": 1, "before": ["v"]}


def test_user_failures_use_the_tasks_budget() -> None:
    state, _ = begin(Graph.of(graph({"a": []}, retries=1)), {})
    again = starts(advance(state, NodeFailed("a", 1, RAISED)))["a"]
    assert (again.attempt, again.after_seconds) == (2, 0.0)
    assert advance(state, NodeFailed("a", 2, RAISED)) == [Fail(RAISED)]


def test_system_failures_have_their_own_budget() -> None:
    state, _ = begin(Graph.of(graph({"a": []})), {})
    pauses: list[float] = []
    for attempt in range(1, 10):
        again = starts(advance(state, NodeFailed("a", attempt, LOST)))["a"]
        pauses.append(again.after_seconds)
    assert pauses[0] == 0.1
    assert pauses[-1] == 5.0
    assert advance(state, NodeFailed("a", 10, LOST)) == [Fail(LOST)]


@pytest.mark.parametrize("kind", ["interrupted", "no_renewal"])
def test_a_graceful_move_is_nobodys_failure(kind: str) -> None:
    asked = Failure(Owner.SYSTEM, kind, "asked to move")
    state, _ = begin(Graph.of(graph({"a": []})), {})
    for attempt in range(1, 30):
        again = starts(advance(state, NodeFailed("a", attempt, asked, saved=True)))["a"]
        assert (again.attempt, again.after_seconds) == (attempt + 1, 0.0)
    assert state.tries["a"].system_failures == 0
    for failure, saved in ((asked, False), (LOST, True)):
        state, _ = begin(Graph.of(graph({"a": []})), {})
        advance(state, NodeFailed("a", 1, failure, saved=saved))
        assert state.tries["a"].system_failures == 1, "it brought nothing along, or was broken"


def test_config_failures_are_final() -> None:
    wrong = Failure(Owner.CONFIG, "import", "no module")
    state, _ = begin(Graph.of(graph({"a": []}, retries=5)), {})
    assert advance(state, NodeFailed("a", 1, wrong)) == [Fail(wrong)]


def test_failure_policies() -> None:
    table: dict[str, list[str]] = {"bad": [], "good": [], "after": ["good"], "never": ["bad"]}
    state, _ = begin(Graph.of(graph(table)), {})
    assert advance(state, NodeFailed("bad", 1, RAISED)) == [Fail(RAISED)]

    patient = graph(table, failure_policy="fail_after_executable_nodes_complete")
    state, _ = begin(Graph.of(patient), {})
    assert advance(state, NodeFailed("bad", 1, RAISED)) == []
    assert set(starts(advance(state, NodeSucceeded("good", 1, {"o0": 1})))) == {"after"}
    assert advance(state, NodeSucceeded("after", 1, {"o0": 1})) == [Fail(RAISED)]


def test_late_events_of_old_attempts_change_nothing() -> None:
    state, _ = begin(Graph.of(graph({"a": [], "b": ["a"]})), {})
    advance(state, NodeFailed("a", 1, LOST))
    assert advance(state, NodeSucceeded("a", 1, {"o0": 1})) == []
    assert set(starts(advance(state, NodeSucceeded("a", 2, {"o0": 1})))) == {"b"}


def test_paths_into_values_and_a_part_that_is_not_there() -> None:
    spec = graph({"a": []})
    outputs = {"all": OutputRef("a", "o0", ("rows", "1", "name"))}
    spec = WorkflowSpec(spec.name, spec.interface, spec.nodes, spec.tasks, outputs, spec.bundle)
    state, _ = begin(Graph.of(spec), {})
    made = {"o0": {"rows": [{}, {"name": "whimbrel"}]}}
    assert advance(state, NodeSucceeded("a", 1, made)) == [Succeed({"all": "whimbrel"})]
    state, _ = begin(Graph.of(spec), {})
    (failed,) = advance(state, NodeSucceeded("a", 1, {"o0": {"rows": []}}))
    assert isinstance(failed, Fail)
    assert failed.failure.owner is Owner.USER


def test_an_unreadable_output_matters_only_to_who_reads_it() -> None:
    far = Artifact("file:///far", "0" * 64, 1, "far", "value")
    _, whole, _ = finish(chain(3), {}, lambda running: running[0])
    whole["n0"] = Known(None, whole["n0"].input_digest, far)
    spec = chain(3)
    spec = WorkflowSpec(spec.name, spec.interface, spec.nodes, spec.tasks, {}, spec.bundle)
    assert begin(Graph.of(spec), {}, known=whole)[1] == [Succeed({})]
    del whole["n1"], whole["n2"]
    assert begin(Graph.of(spec), {}, known=whole)[1] == [Unreadable("n1", ("file:///far",))]


def test_ten_thousand_nodes_end_and_touch_each_edge_once() -> None:
    state, decisions = begin(Graph.of(fan(10_000)), {})
    queue = list(starts(decisions).values())
    count = 0
    while queue:
        start = queue.pop()
        count += 1
        decisions = advance(state, NodeSucceeded(start.node, start.attempt, {"o0": 1}))
        queue.extend(starts(decisions).values())
    assert count == 10_002
    assert state.ended
