"""An agent that is to stop for good lets go of every run, and takes no other."""

import asyncio
from pathlib import Path

from whimbrel.spec import Want

from data_plane_agent import messages as m
from data_plane_agent.fence import SessionOver, State
from tests.data_plane_agent.engine_under_test import X, agent, forever, until
from tests.data_plane_agent.graphs import chain
from tests.data_plane_agent.virtual_time import virtual
from tests.fakes import FakeLedger, finished

Y = "p/d/y"
DRAINED = m.Released("drain", "its agent stops")


def ledger_with(*names: str) -> FakeLedger:
    ledger = FakeLedger()
    for name in names:
        ledger.launch(name, chain(2))
    return ledger


@virtual
async def test_everything_held_is_let_go_of_and_told_before_it_ends(tmp_path: Path) -> None:
    ledger = ledger_with(X, Y)
    async with agent(tmp_path, ledger, forever, quiesce_seconds=10) as it:
        it.assign(X, Y)
        it.join()
        await until(lambda: all(run.trials["n0"].runs for run in it.engine.holdings.runs.values()))
        await until(lambda: len(it.launcher.started) == 2)
        draining = asyncio.create_task(it.engine.drain())
        await until(lambda: len(it.launcher.quiesced) == 2)
        assert it.guard.state is State.DRAINING
        x = next(one for one in it.launcher.started if one.key.execution == X)
        it.launcher.events.put_nowait([finished(x.key, {"o0": 1}, x.input_digest)])
        assert await it.end(X) == DRAINED
        assert not draining.done()
        await draining  # the other one is stopped when its time is over
        assert (ledger.rows[Y]["end"], it.outbox.waiting, it.engine.held()) == (DRAINED, 0, ())
        assert list(ledger.rows[X]["outputs"]) == ["n0"]
        assert len(it.launcher.started) == 2


@virtual
async def test_nothing_new_is_claimed_and_there_is_no_room(tmp_path: Path) -> None:
    ledger = ledger_with(X)
    async with agent(tmp_path, ledger) as it:
        it.join()
        await until(lambda: it.engine.reconciled)
        await it.engine.drain()
        it.assign(X)
        await asyncio.sleep(10)
        assert ledger.claims == []
        assert it.launcher.started == []


@virtual
async def test_it_goes_on_over_a_new_session(tmp_path: Path) -> None:
    ledger = ledger_with(X)
    async with agent(tmp_path, ledger, forever, quiesce_seconds=5) as it:
        it.assign(X)
        it.join()
        await until(lambda: it.launcher.started)
        it.guard.hear(SessionOver())
        draining = asyncio.create_task(it.engine.drain())
        await asyncio.sleep(10)
        assert not draining.done()
        it.join(2)
        await draining
        assert ledger.rows[X]["end"] == DRAINED
        assert it.guard.state is State.DRAINING


@virtual
async def test_what_was_asked_for_before_is_released_for_that_reason(tmp_path: Path) -> None:
    ledger = ledger_with(X)
    async with agent(tmp_path, ledger, forever, quiesce_seconds=5) as it:
        it.assign(X)
        it.join()
        await until(lambda: it.launcher.started)
        it.assign(X, want=Want.QUIESCE)
        await it.engine.drain()
        assert ledger.rows[X]["end"] == m.Released("", "quiesced")


@virtual
async def test_what_an_agent_before_it_left_is_let_go_of_too(tmp_path: Path) -> None:
    ledger = ledger_with(X)
    async with agent(tmp_path, ledger, forever) as it:
        it.assign(X)
        it.join()
        await until(lambda: it.launcher.started)
        ledger.away = True
        first = it.launcher.started[0]
        it.launcher.events.put_nowait([finished(first.key, {"o0": 1}, first.input_digest)])
        await until(lambda: len(it.launcher.started) == 2)
        await until(lambda: it.outbox.waiting)
    ledger.away = False
    async with agent(tmp_path, ledger) as it:
        draining = asyncio.create_task(it.engine.drain())
        await asyncio.sleep(10)
        assert not draining.done()
        it.join(2)
        await draining
        assert ledger.rows[X]["end"] == DRAINED
        assert list(ledger.rows[X]["outputs"]) == ["n0"]
        assert it.nodes_started == []
