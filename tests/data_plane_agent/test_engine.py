"""The engine against a ledger that keeps its rules: once each, whatever goes away."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from whimbrel.spec import (
    Artifact,
    Assignment,
    Failure,
    Outputs,
    Owner,
    Want,
    canonical,
    sha256,
)

from data_plane_agent import dag
from data_plane_agent import messages as m
from data_plane_agent.fence import SessionOver, State
from data_plane_agent.launcher import Attempt, AttemptKey, Broke, Finished, Saved
from tests.data_plane_agent.engine_under_test import X, agent, answer, forever, until
from tests.data_plane_agent.graphs import chain, fan, graph
from tests.fakes import FakeLedger, finished

pytestmark = pytest.mark.anyio


async def test_a_chain_arrives_and_is_forgotten(tmp_path: Path) -> None:
    ledger = FakeLedger()
    ledger.launch(X, chain(3))
    async with agent(tmp_path, ledger) as it:
        it.assign(X)
        it.join()
        assert isinstance(await it.end(), m.Succeeded)
        assert it.nodes_started == ["n0", "n1", "n2"]
        assert [type(event) for event in ledger.rows[X]["log"]] == [
            *[m.NodeOutput] * 3,
            m.Succeeded,
        ]
        await until(lambda: not it.engine.held())
        assert str(it.engine.holdings.digest) == "0" * 64
        assert it.outbox.waiting == 0


async def test_nothing_starts_before_its_claim(tmp_path: Path) -> None:
    ledger = FakeLedger()
    ledger.launch(X, chain(1), epoch=2)
    async with agent(tmp_path, ledger) as it:
        it.assign(X, epoch=1)
        it.join()
        await until(lambda: ledger.claims)
        await until(lambda: not it.engine.holdings.wishes(room=9))
        assert it.nodes_started == []


async def test_a_fan_of_many_is_committed_in_batches(tmp_path: Path) -> None:
    ledger = FakeLedger()
    ledger.launch(X, fan(300))
    async with agent(tmp_path, ledger) as it:
        it.assign(X)
        it.join()
        await it.end()
        assert len(it.nodes_started) == 302
        assert len(ledger.batches) < 30


async def test_a_lost_answer_is_told_again_and_changes_nothing(tmp_path: Path) -> None:
    ledger = FakeLedger()
    ledger.launch(X, fan(5))
    ledger.lose_answers = 2
    async with agent(tmp_path, ledger) as it:
        it.assign(X)
        it.join()
        await it.end()
        await until(lambda: it.outbox.waiting == 0)
    outputs = [event.node for event in ledger.rows[X]["log"] if isinstance(event, m.NodeOutput)]
    assert sorted(outputs) == sorted(set(outputs))


async def test_the_region_computes_on_without_the_centre_and_is_heard_later(tmp_path: Path) -> None:
    ledger = FakeLedger()
    ledger.launch(X, chain(5))
    gate = asyncio.Event()

    def behave(attempt: Attempt) -> Mapping[str, Any]:
        if attempt.key.node == "n0":
            ledger.away = True
            gate.set()
        return answer(attempt)

    async with agent(tmp_path, ledger, behave) as it:
        it.assign(X)
        it.join()
        await gate.wait()
        it.guard.hear(SessionOver())
        assert it.guard.state is State.JOINING
        await until(lambda: len(it.nodes_started) == 5)
        assert ledger.rows[X]["outputs"] == {}
        ledger.away = False
        it.join(2)
        await it.end()
        assert len(it.nodes_started) == 5
        assert ledger.claims[-1] == (2, [m.Wish(X, 1)])
        assert [batch[:2] for batch in ledger.batches] == [(2, 1)]


async def test_a_new_session_drops_what_moved_on(tmp_path: Path) -> None:
    ledger = FakeLedger()
    ledger.launch(X, chain(3))

    def behave(attempt: Attempt) -> Mapping[str, Any] | None:
        ledger.away = True
        return None if attempt.key.node == "n2" else answer(attempt)

    async with agent(tmp_path, ledger, behave) as it:
        it.assign(X)
        it.join()
        await until(lambda: len(it.nodes_started) == 3)
        it.guard.hear(SessionOver())
        ledger.away = False
        ledger.rows[X]["epoch"] = 3
        it.join(2)
        await until(lambda: not it.engine.held())
        assert [key.node for key in it.launcher.cancelled] == ["n2"]
        assert it.engine.wasted >= 2
        assert ledger.batches == []


async def test_fenced_in_the_middle_stops_its_attempts(tmp_path: Path) -> None:
    ledger = FakeLedger()
    ledger.launch(X, graph({"fast": [], "slow": []}))
    async with agent(tmp_path, ledger, forever) as it:
        it.assign(X)
        it.join()
        await until(lambda: len(it.nodes_started) == 2)
        ledger.rows[X]["epoch"] = 2
        fast = next(one for one in it.launcher.started if one.key.node == "fast")
        it.launcher.events.put_nowait([finished(fast.key, {"o0": 1}, fast.input_digest)])
        await until(lambda: not it.engine.held())
        assert [key.node for key in it.launcher.cancelled] == ["slow"]
        assert ledger.rows[X]["outputs"] == {}


@pytest.mark.parametrize("how", ["cancel", "removed", "superseded"])
async def test_unwanted_work_is_stopped(tmp_path: Path, how: str) -> None:
    ledger = FakeLedger()
    ledger.launch(X, chain(1))
    async with agent(tmp_path, ledger, forever) as it:
        it.assign(X)
        it.join()
        await until(lambda: it.nodes_started)
        match how:
            case "cancel":
                it.assign(X, want=Want.CANCEL)
            case "removed":
                it.engine.assigned(m.Removed((Assignment(X, 1, "c"),)))
            case _:
                ledger.rows[X]["epoch"] = 3
                it.assign(X, epoch=3)
                await until(lambda: len(it.nodes_started) == 2)
                assert it.launcher.started[1].key.epoch == 3
        await until(lambda: it.launcher.cancelled)
        assert it.launcher.cancelled == [AttemptKey(X, "n0", 1, 1)]


async def test_silence_kills_nothing_but_is_asked_about(tmp_path: Path) -> None:
    ledger = FakeLedger()
    ledger.launch(X, chain(1))
    async with agent(tmp_path, ledger, forever) as it:
        it.assign(X)
        it.join()
        await until(lambda: it.nodes_started)
        it.engine.assigned(m.All(()))
        await until(lambda: len(ledger.claims) == 2)
        assert it.engine.held() == (m.Wish(X, 1),)
        assert it.launcher.cancelled == []
        ledger.rows[X]["epoch"] = 2
        it.engine.assigned(m.All(()))
        await until(lambda: not it.engine.held())


async def test_what_was_refused_is_asked_for_again_when_everything_is_said_again(
    tmp_path: Path,
) -> None:
    """Rows that come from a backup may stand at that epoch once more."""
    ledger = FakeLedger()
    ledger.launch(X, chain(1), epoch=2)
    wished = (Assignment(X, 1, "c"),)
    async with agent(tmp_path, ledger, forever) as it:
        it.assign(X)
        it.join()
        await until(lambda: ledger.claims)
        it.engine.assigned(m.Changed(wished))
        ledger.rows[X]["epoch"] = 1
        assert not it.engine.held()
        it.engine.assigned(m.All(wished))
        await until(it.engine.held)
        assert len(ledger.claims) == 2


async def test_a_restart_adopts_what_fits_and_repeats_nothing(tmp_path: Path) -> None:
    ledger = FakeLedger()
    spec = graph({"a": [], "b": ["a"], "c": []})
    ledger.launch(X, spec)
    started: list[Attempt] = []

    def first(attempt: Attempt) -> Mapping[str, Any] | None:
        started.append(attempt)
        ledger.away = True
        return answer(attempt) if attempt.key.node == "a" else None

    async with agent(tmp_path, ledger, first) as it:
        it.assign(X)
        it.join()
        await until(lambda: len(started) == 3)
        await until(lambda: it.outbox.waiting == 1)
    ledger.away = False
    keys = {one.key.node: one for one in started}
    found = {
        keys["b"].key: keys["b"].input_digest,
        keys["c"].key: "of other inputs",
        AttemptKey("p/d/other", "n", 1, 1): "nobody's",
    }
    async with agent(tmp_path, ledger, found=found) as it:
        # It ended while nobody listened: its end may come before the verdict about it.
        end = finished(keys["b"].key, {"o0": "b"}, keys["b"].input_digest)
        it.launcher.events.put_nowait([end])
        it.join(2)
        await it.end()
        assert it.nodes_started == ["c"]
        cancelled = {(key.execution, key.node) for key in it.launcher.cancelled}
        assert cancelled == {(X, "c"), ("p/d/other", "n")}
        assert set(ledger.rows[X]["outputs"]) == {"a", "b", "c"}


async def test_an_end_in_the_outbox_is_not_said_twice(tmp_path: Path) -> None:
    ledger = FakeLedger()
    ledger.launch(X, chain(1))

    def behave(attempt: Attempt) -> Mapping[str, Any]:
        ledger.away = True
        return answer(attempt)

    async with agent(tmp_path, ledger, behave) as it:
        it.assign(X)
        it.join()
        await until(lambda: it.outbox.waiting == 2)
    ledger.away = False
    async with agent(tmp_path, ledger) as it:
        it.join(2)
        await it.end()
        await until(lambda: it.outbox.waiting == 0)
        assert it.nodes_started == []


async def test_failures_are_told_with_what_follows(tmp_path: Path) -> None:
    ledger = FakeLedger()
    ledger.launch(X, graph({"a": []}, retries=1))
    raised = Failure(Owner.USER, "raised", "ValueError: no")
    async with agent(tmp_path, ledger, lambda _: raised) as it:
        it.assign(X)
        it.join()
        end = await it.end()
        assert isinstance(end, m.Failed)
        assert (end.failure.node, end.failure.message) == ("a", "ValueError: no")
        said = [one for one in ledger.rows[X]["log"] if isinstance(one, m.AttemptFailed)]
        assert [(one.attempt, one.will_retry) for one in said] == [(1, True), (2, False)]


async def test_graceful_moves_do_not_use_up_the_budget(tmp_path: Path) -> None:
    ledger = FakeLedger()
    ledger.launch(X, graph({"a": []}))
    asked = Failure(Owner.SYSTEM, "interrupted", "asked to move")
    moves = dag.SYSTEM_TRIES + 2
    async with agent(tmp_path, ledger, forever) as it:
        it.assign(X)
        it.join()
        for attempt in range(1, moves + 1):
            await until(lambda count=attempt: len(it.launcher.started) == count)
            key = AttemptKey(X, "a", attempt, 1)
            artifact = Artifact(f"file:///{attempt}", "00", 1, "r")
            it.launcher.events.put_nowait([Saved(key, artifact, attempt), Broke(key, asked, 1, 2)])
        await until(lambda: len(it.launcher.started) == moves + 1)
        last = it.launcher.started[-1]
        assert last.checkpoint is not None
        assert last.checkpoint.uri == f"file:///{moves}"
        it.launcher.events.put_nowait([finished(last.key, {"o0": 1}, last.input_digest)])
        assert isinstance(await it.end(), m.Succeeded)


async def test_an_unreadable_input_stops_the_run_and_says_so(tmp_path: Path) -> None:
    ledger = FakeLedger()
    ledger.launch(X, graph({"a": [], "b": []}))
    async with agent(tmp_path, ledger, forever) as it:
        it.assign(X)
        it.join()
        await until(lambda: len(it.nodes_started) == 2)
        failure = Failure(Owner.SYSTEM, "unreadable_input", "gone")
        broke = Broke(AttemptKey(X, "a", 1, 1), failure, 1, 2, unreadable=("file:///gone",))
        it.launcher.events.put_nowait([broke])
        assert await it.end() == m.Unreachable("a", ("file:///gone",))
        await until(lambda: not it.engine.held())
        assert [key.node for key in it.launcher.cancelled] == ["b"]


async def test_a_large_document_is_read_before_the_graph_moves_on(tmp_path: Path) -> None:
    ledger = FakeLedger()
    ledger.launch(X, chain(2))

    def behave(attempt: Attempt) -> Mapping[str, Any] | None:
        return None if attempt.key.node == "n0" else answer(attempt)

    async with agent(tmp_path, ledger, behave) as it:
        it.assign(X)
        it.join()
        await until(lambda: it.nodes_started)
        text = canonical({"o0": "large"}).encode()
        it.objects["file:///large"] = text
        large = Artifact("file:///large", sha256(text), len(text), "r", "value")
        first = it.launcher.started[0]
        outputs = Outputs("", sha256(text), (), large)
        it.launcher.events.put_nowait([Finished(first.key, outputs, first.input_digest, 1, 2)])
        await it.end()
        assert it.launcher.started[1].inputs["before"] == ["large"]
        assert ledger.rows[X]["outputs"]["n0"].outputs.offloaded == large


async def test_room_is_kept(tmp_path: Path) -> None:
    ledger = FakeLedger()
    names = [f"p/d/x{i}" for i in range(3)]
    for name in names:
        ledger.launch(name, chain(1))
    async with agent(tmp_path, ledger, forever, max_executions=2) as it:
        it.assign(*names)
        it.join()
        await until(lambda: len(it.nodes_started) == 2)
        first = it.launcher.started[0]
        it.launcher.events.put_nowait([finished(first.key, {"o0": 1}, first.input_digest)])
        await it.end(first.key.execution)
        await until(lambda: len(it.nodes_started) == 3)


async def test_running_is_told_of_an_attempt_that_outlives_its_batch(tmp_path: Path) -> None:
    ledger = FakeLedger()
    ledger.launch(X, chain(1))
    async with agent(tmp_path, ledger, forever) as it:
        it.assign(X)
        it.join()
        await until(lambda: ledger.rows[X]["log"])
        assert ledger.rows[X]["log"] == [m.AttemptRuns("n0", 1, 1)]


async def test_a_ledger_that_forgot_gets_a_new_session(tmp_path: Path) -> None:
    ledger = FakeLedger()
    ledger.launch(X, chain(3))

    def behave(attempt: Attempt) -> Mapping[str, Any] | None:
        return None if attempt.key.node == "n1" else answer(attempt)

    async with agent(tmp_path, ledger, behave) as it:
        it.assign(X)
        it.join()
        await until(lambda: ledger.cursors.get(1, 0) > 0 and it.outbox.waiting == 0)
        ledger.cursors.clear()
        second = it.launcher.started[1]
        it.launcher.events.put_nowait([finished(second.key, {"o0": 1}, second.input_digest)])
        await until(lambda: it.renewals)
        it.join(2)
        await it.end()


async def test_an_unknown_specification_fails_the_run_and_nothing_else(tmp_path: Path) -> None:
    ledger = FakeLedger()
    ledger.launch(X, chain(1))
    ledger.launch("p/d/y", chain(2))
    ledger.specs[ledger.rows[X]["spec"]] = b""
    async with agent(tmp_path, ledger) as it:
        it.assign(X, "p/d/y")
        it.join()
        end = await it.end()
        assert isinstance(end, m.Failed)
        assert end.failure.owner is Owner.CONFIG
        assert isinstance(await it.end("p/d/y"), m.Succeeded)
