"""Hosts of attempts, what a run remembers of them, and a run that there is no room for."""

import asyncio
from pathlib import Path

import pytest
from whimbrel.spec import Failure, Owner, Resources

from data_plane_agent import codec
from data_plane_agent import messages as m
from data_plane_agent.fence import SessionOver
from data_plane_agent.guard import Guard
from data_plane_agent.heartbeat import Heartbeat
from data_plane_agent.launcher import (
    Attempt,
    AttemptKey,
    Broke,
    Capacity,
    Offer,
    Started,
    Unplaceable,
)
from data_plane_agent.run import OUTPUTS_BYTES
from tests.data_plane_agent.engine_under_test import Agent, X, agent, forever, until
from tests.data_plane_agent.graphs import chain, graph
from tests.fakes import FakeLedger, finished

pytestmark = pytest.mark.anyio

LOST = Failure(Owner.SYSTEM, "node_lost", "the node is gone")
OWN = Failure(Owner.USER, "raised", "no")


def ledger_with(*, retries: int = 0) -> FakeLedger:
    ledger = FakeLedger()
    ledger.launch(X, graph({"a": []}, retries=retries))
    return ledger


def broke(attempt: int, host: str, failure: Failure = LOST) -> Broke:
    return Broke(AttemptKey(X, "a", attempt, 1), failure, 1, 2, host=host)


async def tried(it: Agent, count: int) -> Attempt:
    await until(lambda: len(it.launcher.started) == count)
    return it.launcher.started[-1]


async def test_hosts_that_broke_are_avoided_newest_first_and_three_at_most(tmp_path: Path) -> None:
    ledger = ledger_with(retries=9)
    async with agent(tmp_path, ledger, forever) as it:
        it.assign(X)
        it.join()
        assert (await tried(it, 1)).avoid == ()
        wanted = [
            ("n1", LOST, ("n1",)),
            ("n2", OWN, ("n1",)),
            ("n2", LOST, ("n2", "n1")),
            ("n1", LOST, ("n1", "n2")),
            ("", LOST, ("n1", "n2")),
            ("n3", LOST, ("n3", "n1", "n2")),
            ("n4", LOST, ("n4", "n3", "n1")),
        ]
        for number, (host, failure, avoid) in enumerate(wanted, start=1):
            it.launcher.events.put_nowait([broke(number, host, failure)])
            assert (await tried(it, number + 1)).avoid == avoid


async def test_a_claim_and_the_outbox_tell_what_to_avoid_after_a_restart(tmp_path: Path) -> None:
    ledger = ledger_with()
    async with agent(tmp_path, ledger, forever) as it:
        it.assign(X)
        it.join()
        await tried(it, 1)
        ledger.away = True
        it.launcher.events.put_nowait([broke(1, "n2")])
        await tried(it, 2)
        await until(lambda: it.outbox.waiting)
    ledger.away = False
    ledger.tries[X] = (m.NodeTries("a", 0, 0, 0, ("n1",)),)
    async with agent(tmp_path, ledger, forever) as it:
        it.assign(X)
        it.join()
        assert (await tried(it, 1)).avoid == ("n2", "n1")


async def test_the_ledger_hears_where_it_ran_and_where_not(tmp_path: Path) -> None:
    ledger = ledger_with()
    async with agent(tmp_path, ledger, forever) as it:
        it.assign(X)
        it.join()
        await tried(it, 1)
        key = AttemptKey(X, "a", 1, 1)
        it.launcher.events.put_nowait([Started(key, 5, "n1", ("n0",))])
        log = ledger.rows[X]["log"]
        await until(lambda: log)
        assert log[0] == m.AttemptRuns("a", 1, 5, "n1", ("n0",))
        it.launcher.events.put_nowait([broke(1, "")])
        await until(lambda: len(log) > 1)
        assert (log[1].host, log[1].avoided) == ("n1", ("n0",))
        second = (await tried(it, 2)).key
        assert it.launcher.started[-1].avoid == ("n1",)
        digest = it.launcher.started[-1].input_digest
        it.launcher.events.put_nowait(
            [Started(second, 6, "n2", ("n1",)), finished(second, {"o0": 1}, digest)]
        )
        await it.end()
        assert next(one for one in log if isinstance(one, m.NodeOutput)).host == "n2"


async def test_no_room_for_anything_of_it_lets_go_of_it(tmp_path: Path) -> None:
    ledger = FakeLedger()
    ledger.launch(X, graph({"a": [], "b": [], "c": ["a"]}))
    async with agent(tmp_path, ledger, forever) as it:
        it.assign(X)
        it.join()
        await until(lambda: len(it.nodes_started) == 2)
        a, b = (attempt.key for attempt in it.launcher.started)
        it.launcher.events.put_nowait([Unplaceable(a, "3 Insufficient cpu")])
        await until(lambda: X in it.engine.holdings.squeezed)
        await asyncio.sleep(0.6)  # two ticks of the engine: b may still go on
        assert ledger.rows[X]["end"] is None
        it.launcher.events.put_nowait([Unplaceable(b, "too")])
        assert await it.end() == m.Released("unschedulable", "no room for a: 3 Insufficient cpu")
        await until(lambda: not it.engine.held())
        assert sorted(it.launcher.cancelled, key=str) == sorted([a, b], key=str)
        # At the next epoch it may come back.
        it.assign(X, epoch=2)
        ledger.rows[X]["end"] = None
        await until(lambda: len(it.nodes_started) == 4)


async def test_room_that_comes_keeps_it(tmp_path: Path) -> None:
    ledger = ledger_with()
    async with agent(tmp_path, ledger, forever) as it:
        it.assign(X)
        it.join()
        key = (await tried(it, 1)).key
        it.launcher.events.put_nowait([Unplaceable(key, "full"), Started(key, 1, "n1")])
        digest = it.launcher.started[0].input_digest
        await until(lambda: X not in it.engine.holdings.squeezed and ledger.rows[X]["log"])
        it.launcher.events.put_nowait([finished(key, {"o0": 1}, digest)])
        assert isinstance(await it.end(), m.Succeeded)


async def test_a_place_that_comes_keeps_it_before_it_starts(tmp_path: Path) -> None:
    ledger = FakeLedger()
    ledger.launch(X, graph({"a": [], "b": []}))
    async with agent(tmp_path, ledger, forever) as it:
        it.assign(X)
        it.join()
        await until(lambda: len(it.nodes_started) == 2)
        a, b = (attempt.key for attempt in it.launcher.started)
        it.launcher.events.put_nowait([Unplaceable(a, "full"), Unplaceable(a, "")])
        it.launcher.events.put_nowait([Unplaceable(b, "full")])
        await until(lambda: X in it.engine.holdings.squeezed)
        before = it.engine.progress
        await until(lambda: it.engine.progress > before + 2)
        assert ledger.rows[X]["end"] is None
        assert it.launcher.cancelled == []


async def test_nothing_is_let_go_while_nobody_hears_it(tmp_path: Path) -> None:
    ledger = ledger_with()
    async with agent(tmp_path, ledger, forever) as it:
        it.assign(X)
        it.join()
        key = (await tried(it, 1)).key
        it.guard.hear(SessionOver())
        it.launcher.events.put_nowait([Unplaceable(key, "full")])
        await until(lambda: X in it.engine.holdings.squeezed)
        before = it.engine.progress
        await until(lambda: it.engine.progress > before + 2)
        assert not any(one.last for one in it.outbox.pending())
        assert it.launcher.cancelled == []
        it.join(2)
        assert isinstance(await it.end(), m.Released)


async def test_outputs_that_would_never_arrive_fail_the_run(tmp_path: Path) -> None:
    ledger = FakeLedger()
    ledger.launch(X, chain(1))
    async with agent(tmp_path, ledger, lambda _: {"o0": "x" * OUTPUTS_BYTES}) as it:
        it.assign(X)
        it.join()
        end = await it.end()
    assert isinstance(end, m.Failed)
    assert (end.failure.owner, end.failure.kind) == (Owner.USER, "outputs_too_large")


@pytest.mark.parametrize(
    "event",
    [
        m.AttemptRuns("a", 1, 5, "n1", ("n0", "n2")),
        m.AttemptFailed("a", 1, LOST, True, 1, 2, host="n1", avoided=("n0",)),
        m.Released("unschedulable", "full"),
        m.Released("", ""),
    ],
)
def test_events_come_back_as_they_were_said(event: m.Event) -> None:
    assert codec.decode(codec.encode(event, execution=X, epoch=1)) == event


def test_the_router_hears_what_the_compute_can_and_whether_it_answers() -> None:
    ill = Capacity(Resources(cpu=1), Resources(), 0, 2, "timed out", Offer(("i/*",), (), ("s",)))
    heart = Heartbeat(
        cluster="c", addresses=["a"], connect=lambda _: None, guard=Guard(clock=lambda: 1),
        vitals=lambda: (m.Load(ill, 1, 0), 0, False, ""), on_over=lambda: None,
    )  # fmt: skip
    beat = codec.beat_to_wire(heart.next(m.Welcome("s", 1, 1, 1, False)))
    assert not beat.compute_ok
    assert (beat.capacity.compute_ill, beat.capacity.compute_why) == (True, "timed out")
    assert list(beat.capacity.offer.images) == ["i/*"]
    assert list(beat.capacity.offer.secrets) == ["s"]
