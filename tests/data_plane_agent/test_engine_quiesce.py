"""A run that is to be let go of: nothing starts, what runs may save and end, RELEASED is last."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from whimbrel.spec import Artifact, Assignment, Failure, Mode, Owner, Want

from data_plane_agent import messages as m
from data_plane_agent.launcher import Attempt, AttemptKey, Broke, Saved
from tests.data_plane_agent.engine_under_test import Agent, X, agent, forever, until
from tests.data_plane_agent.graphs import chain, graph
from tests.data_plane_agent.virtual_time import virtual
from tests.fakes import FakeLedger, finished

ASKED = m.Released("", "quiesced")
MOVED = Failure(Owner.SYSTEM, "interrupted", "asked to move")


def ledger_with(spec: Any, *, mode: Mode = Mode.IDEMPOTENT) -> FakeLedger:
    ledger = FakeLedger()
    ledger.launch(X, spec)
    ledger.modes[X] = mode
    return ledger


async def started(it: Agent, count: int) -> list[Attempt]:
    """So many run, and the engine has heard so."""
    await until(lambda: len(it.launcher.started) == count)
    runs = it.engine.holdings.runs[X].trials
    await until(lambda: all(trial.runs for trial in runs.values()))
    return it.launcher.started


def end(it: Agent, attempt: Attempt, *, value: Any = 1) -> None:
    it.launcher.events.put_nowait([finished(attempt.key, {"o0": value}, attempt.input_digest)])


def outputs(ledger: FakeLedger) -> list[str]:
    return [one.node for one in ledger.rows[X]["log"] if isinstance(one, m.NodeOutput)]


async def nothing_more(it: Agent) -> None:
    before = len(it.launcher.started)
    await asyncio.sleep(120)
    assert len(it.launcher.started) == before
    assert it.engine.held() == ()
    assert it.engine.wasted == 0  # it says nothing more, either


@virtual
async def test_what_runs_ends_and_nothing_follows_it(tmp_path: Path) -> None:
    ledger = ledger_with(graph({"a": [], "b": [], "c": ["a"]}))
    async with agent(tmp_path, ledger, forever) as it:
        it.assign(X)
        it.join()
        a, b = await started(it, 2)
        it.assign(X, want=Want.QUIESCE)
        it.assign(X, want=Want.QUIESCE)  # a level is put again and again
        await asyncio.sleep(1)
        assert it.launcher.quiesced == [a.key, b.key]
        end(it, a)
        saved = Saved(b.key, Artifact("file:///b", "00", 1, "r"), 5)
        it.launcher.events.put_nowait([saved, Broke(b.key, MOVED, 1, 2)])
        assert await it.end() == ASKED
        log = ledger.rows[X]["log"]
        assert [type(one) for one in log[-4:]] == [
            m.NodeOutput, m.Checkpointed, m.AttemptFailed, m.Released,
        ]  # fmt: skip
        assert log[-2].will_retry
        await nothing_more(it)
        assert it.launcher.cancelled == []


@pytest.mark.parametrize("mode", [Mode.IDEMPOTENT, Mode.PINNED])
def test_what_was_not_seen_to_run_is_stopped(tmp_path: Path, mode: Mode) -> None:
    @virtual
    async def story() -> None:
        ledger = ledger_with(chain(1), mode=mode)
        async with agent(tmp_path, ledger, forever) as it:

            async def queue(attempts: Sequence[Attempt]) -> None:
                it.launcher.started.extend(attempts)

            it.launcher.start = queue
            it.assign(X)
            it.join()
            await until(lambda: it.launcher.started)
            it.assign(X, want=Want.QUIESCE)
            assert await it.end() == ASKED
            key = it.launcher.started[0].key
            assert it.launcher.cancelled == [key]
            assert it.launcher.killed == ([key] if mode is Mode.PINNED else [])
            assert it.launcher.quiesced == []

    story()


@virtual
async def test_a_retry_that_waits_is_dropped(tmp_path: Path) -> None:
    ledger = ledger_with(chain(1))
    lost = Failure(Owner.SYSTEM, "worker_lost", "killed")
    async with agent(tmp_path, ledger, lambda _: lost) as it:
        it.assign(X)
        it.join()
        await until(lambda: it.launcher.taken_keys)
        it.assign(X, want=Want.QUIESCE)
        assert await it.end() == ASKED
        await nothing_more(it)
        assert it.launcher.cancelled == []


@virtual
async def test_who_does_not_end_in_time_is_stopped(tmp_path: Path) -> None:
    ledger = ledger_with(chain(2))
    async with agent(tmp_path, ledger, forever, quiesce_seconds=20) as it:
        it.assign(X)
        it.join()
        [a] = await started(it, 1)
        loop = asyncio.get_running_loop()
        began = loop.time()
        it.assign(X, want=Want.QUIESCE)
        await asyncio.sleep(19.5)
        assert ledger.rows[X]["end"] is None
        assert it.launcher.cancelled == []
        assert await it.end() == ASKED
        assert 20 <= loop.time() - began < 21
        assert it.launcher.cancelled == [a.key]
        end(it, a)
        await nothing_more(it)
        assert outputs(ledger) == []


@virtual
async def test_a_run_that_is_done_anyway_ends_so(tmp_path: Path) -> None:
    ledger = ledger_with(chain(1))
    async with agent(tmp_path, ledger, forever) as it:
        it.assign(X)
        it.join()
        [a] = await started(it, 1)
        it.assign(X, want=Want.QUIESCE)
        end(it, a)
        assert isinstance(await it.end(), m.Succeeded)


@virtual
async def test_a_run_that_fails_anyway_ends_so(tmp_path: Path) -> None:
    ledger = ledger_with(chain(1))
    async with agent(tmp_path, ledger, forever) as it:
        it.assign(X)
        it.join()
        [a] = await started(it, 1)
        it.assign(X, want=Want.QUIESCE)
        it.launcher.events.put_nowait([Broke(a.key, Failure(Owner.USER, "raised", "no"), 1, 2)])
        assert isinstance(await it.end(), m.Failed)


@virtual
async def test_it_is_not_asked_to_run_again_at_this_epoch(tmp_path: Path) -> None:
    ledger = ledger_with(chain(2))
    async with agent(tmp_path, ledger, forever) as it:
        it.assign(X)
        it.join()
        [a] = await started(it, 1)
        it.assign(X, want=Want.QUIESCE)
        it.assign(X, want=Want.RUN)
        it.engine.holdings.doubt(X)
        it.engine.can_claim.set()
        await until(lambda: len(ledger.claims) == 2)
        end(it, a)
        assert await it.end() == ASKED
        await nothing_more(it)
        assert it.nodes_started == ["n0"]


@pytest.mark.parametrize("heard", [m.All, m.Changed])
def test_one_that_is_not_held_is_claimed_to_be_let_go_of(
    tmp_path: Path, heard: type[m.All | m.Changed]
) -> None:
    @virtual
    async def story() -> None:
        ledger = ledger_with(chain(1))
        async with agent(tmp_path, ledger, max_executions=0) as it:
            it.engine.assigned(heard((Assignment(X, 1, "c", Want.QUIESCE),)))
            it.join()
            assert await it.end() == ASKED
            assert it.nodes_started == []
            await nothing_more(it)

    story()


@virtual
async def test_at_a_newer_epoch_it_runs(tmp_path: Path) -> None:
    ledger = ledger_with(chain(1))
    async with agent(tmp_path, ledger) as it:
        it.assign(X, want=Want.QUIESCE)
        ledger.rows[X]["epoch"] = 3
        it.assign(X, epoch=3)
        it.join()
        assert isinstance(await it.end(), m.Succeeded)


@virtual
async def test_a_result_on_its_way_to_the_store_is_the_end(tmp_path: Path) -> None:
    class Secluded(FakeLedger):
        def _claim(self, wish: m.Wish) -> m.Claimed | m.NotClaimed:
            claimed = super()._claim(wish)
            assert isinstance(claimed, m.Claimed)
            return replace(claimed, offload=True)

    ledger = Secluded()
    ledger.launch(X, chain(1))
    async with agent(tmp_path, ledger) as it:
        put, may_write = it.put, asyncio.Event()

        async def slow(key: str, data: bytes, *, kind: str = "file") -> Artifact:
            if "/outputs/" in key:
                await may_write.wait()
            return await put(key, data, kind=kind)

        it.put = slow
        it.assign(X)
        it.join()
        await until(lambda: it.nodes_started)
        await asyncio.sleep(1)
        it.assign(X, want=Want.QUIESCE)
        await asyncio.sleep(1)
        may_write.set()
        assert isinstance(await it.end(), m.Succeeded)


@virtual
async def test_a_restart_only_lets_go(tmp_path: Path) -> None:
    ledger = ledger_with(graph({"a": [], "b": [], "c": ["a"]}))
    ran: list[Attempt] = []

    def first(attempt: Attempt) -> None:
        ran.append(attempt)

    async with agent(tmp_path, ledger, first) as it:
        it.assign(X)
        it.join()
        await started(it, 2)
    ledger.quiescing.add(X)
    a = ran[0]
    async with agent(tmp_path, ledger, found={a.key: a.input_digest}) as it:
        it.join(2)
        await until(lambda: it.launcher.quiesced)
        assert it.launcher.quiesced == [a.key]
        end(it, a)
        assert await it.end() == ASKED
        assert outputs(ledger) == ["a"]
        assert it.nodes_started == []
        await nothing_more(it)


@virtual
async def test_a_restart_after_the_last_word_says_it_and_nothing_else(tmp_path: Path) -> None:
    ledger = ledger_with(chain(2))
    async with agent(tmp_path, ledger, forever) as it:
        it.assign(X)
        it.join()
        [a] = await started(it, 1)
        it.assign(X, want=Want.QUIESCE)
        await until(lambda: it.launcher.quiesced)
        ledger.away = True
        end(it, a)
        await until(lambda: it.engine.holdings.runs[X].ended)
        await until(lambda: it.outbox.waiting >= 2)
    ledger.away = False
    async with agent(tmp_path, ledger) as it:
        it.assign(X)
        it.join(2)
        assert await it.end() == ASKED
        assert it.nodes_started == []
        assert outputs(ledger) == ["n0"]


@virtual
async def test_outputs_come_before_the_last_word(tmp_path: Path) -> None:
    """An end that came before the verdict about its run is heard while others are claimed."""
    ledger = ledger_with(graph({"a": [], "b": ["a"]}))
    ledger.launch("p/d/y", chain(3))
    ran: list[Attempt] = []
    async with agent(tmp_path, ledger, lambda one: ran.append(one)) as it:
        it.assign(X)
        it.join()
        await started(it, 1)
    slow = asyncio.Event()
    fetch = ledger.fetch_spec

    async def fetch_spec(digest: str) -> bytes:
        if digest == ledger.rows["p/d/y"]["spec"]:
            await slow.wait()
        return await fetch(digest)

    ledger.fetch_spec = fetch_spec
    found = {ran[0].key: ran[0].input_digest, AttemptKey("p/d/y", "n0", 1, 1): "other"}
    async with agent(tmp_path, ledger, forever, found=found) as it:
        end(it, ran[0])
        it.join(2)
        await until(lambda: X in it.engine.holdings.runs)
        it.assign(X, want=Want.QUIESCE)
        await until(lambda: it.outbox.waiting)
        slow.set()
        assert await it.end() == ASKED
        assert outputs(ledger) == ["a"]
        assert [one.key.execution for one in it.launcher.started] == ["p/d/y"]


@pytest.mark.parametrize("mode", [Mode.EXCLUSIVE, Mode.PINNED])
def test_who_may_not_run_twice_is_dead_first(tmp_path: Path, mode: Mode) -> None:
    @virtual
    async def story() -> None:
        ledger = ledger_with(chain(2), mode=mode)
        loop = asyncio.get_running_loop()

        def clock() -> int:
            return int(loop.time() * 1e9)

        async with agent(tmp_path, ledger, forever, clock=clock, quiesce_seconds=20) as it:
            it.assign(X)
            it.join(ttl_ns=3600 * 10**9)
            await asyncio.sleep(3700)
            it.join(resumed=True)
            await asyncio.sleep(1)
            [a] = await started(it, 1)
            it.launcher.unseen = True
            it.assign(X, want=Want.QUIESCE)
            await asyncio.sleep(300)
            assert ledger.rows[X]["end"] is None
            assert it.engine.held() == (m.Wish(X, 1),)
            it.launcher.unseen = False
            assert await it.end() == ASKED
            assert it.launcher.killed == [a.key]
            await nothing_more(it)

    story()


@virtual
async def test_a_retry_of_a_run_in_doubt_is_not_waited_for(tmp_path: Path) -> None:
    ledger = ledger_with(chain(1))
    lost = Failure(Owner.SYSTEM, "worker_lost", "killed")
    async with agent(tmp_path, ledger, lambda _: lost) as it:
        it.assign(X)
        it.join()
        await until(lambda: it.launcher.taken_keys)
        it.engine.holdings.doubt(X)
        it.assign(X, want=Want.QUIESCE)
        await asyncio.sleep(5)
        assert ledger.rows[X]["end"] == ASKED
        assert it.launcher.quiesced == []
        assert len(it.launcher.started) == 1
