"""Runs of which two copies may never run: stopped with the session, started after every former one
is dead, let go of only then."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from whimbrel.spec import Failure, Mode, Owner, Want

from data_plane_agent import messages as m
from data_plane_agent.fence import Acked, SessionOver, State
from data_plane_agent.launcher import Attempt, AttemptKey, Broke, Unplaceable
from tests.data_plane_agent.engine_under_test import Agent, X, agent, forever, until
from tests.data_plane_agent.graphs import chain, graph
from tests.data_plane_agent.virtual_time import virtual
from tests.fakes import FakeLedger, finished

S = 1_000_000_000
TTL = 10 * S
WAIT = 10 * 1.01 + 1
LOST = Failure(Owner.SYSTEM, "node_lost", "its machine is not seen")


def ledger_with(mode: Mode = Mode.EXCLUSIVE, *, retries: int = 0) -> FakeLedger:
    ledger = FakeLedger()
    ledger.launch(X, graph({"a": []}, retries=retries))
    ledger.modes[X] = mode
    return ledger


class Exclusive:
    """An agent in virtual time, whose session lives as long as `beating`."""

    def __init__(self, it: Agent) -> None:
        self.it = it
        self.beating = True

    async def beat(self) -> None:
        while True:
            await asyncio.sleep(0.5)
            self.tick()

    def tick(self) -> None:
        if self.beating:
            self.it.guard.hear(Acked(self.it.guard.now() - 1))
        _ = self.it.guard.state

    async def runs(self, count: int = 1) -> Attempt:
        """After the wait of a new session."""
        launcher = self.it.launcher
        await until(lambda: len(launcher.started) == count)
        last = launcher.started[-1]
        await until(lambda: self.it.engine.holdings.runs[X].trials[last.key.node].runs)
        return last

    def told(self, *events: object) -> None:
        self.it.launcher.events.put_nowait(list(events))

    def log(self) -> list[m.Event]:
        return self.it.ledger.rows[X]["log"]


@asynccontextmanager
async def exclusive(
    folder: Path,
    ledger: FakeLedger,
    *,
    found: Mapping[AttemptKey, str] | None = None,
    cluster_epoch: int = 1,
) -> AsyncIterator[Exclusive]:
    loop = asyncio.get_running_loop()

    def clock() -> int:
        return int(loop.time() * S)

    async with agent(folder, ledger, forever, found=found, clock=clock, quiesce_seconds=5) as it:
        one = Exclusive(it)
        beats = asyncio.create_task(one.beat())
        it.assign(X)
        it.join(cluster_epoch, ttl_ns=TTL)
        try:
            yield one
        finally:
            beats.cancel()


@virtual
async def test_a_new_session_starts_nothing_before_its_predecessors_work_is_over(
    tmp_path: Path,
) -> None:
    async with exclusive(tmp_path, ledger_with()) as one:
        await asyncio.sleep(WAIT - 0.1)
        assert one.it.guard.state is State.ACTIVE
        assert one.it.launcher.started == []
        attempt = await one.runs()
        assert attempt.exclusive


@virtual
async def test_a_new_session_says_no_released_before_that(tmp_path: Path) -> None:
    ledger = ledger_with()
    ledger.quiescing.add(X)
    async with exclusive(tmp_path, ledger) as one:
        await asyncio.sleep(WAIT - 0.1)
        assert one.log() == []
        assert await one.it.end() == m.Released("", "quiesced")
        assert one.it.launcher.started == []


@virtual
async def test_in_jeopardy_it_is_stopped_at_once_and_starts_again_when_that_is_over(
    tmp_path: Path,
) -> None:
    async with exclusive(tmp_path, ledger_with()) as one:
        first = await one.runs()
        one.beating = False
        await until(lambda: one.it.guard.state is State.JEOPARDY)
        await asyncio.sleep(0.1)
        assert one.it.launcher.killed == [first.key]
        await asyncio.sleep(300)
        assert len(one.it.launcher.started) == 1
        one.beating = True
        second = await one.runs(2)
        assert second.key.attempt == 2
        await until(lambda: any(isinstance(said, m.AttemptFailed) for said in one.log()))
        [failed] = [said for said in one.log() if isinstance(said, m.AttemptFailed)]
        assert (failed.failure.owner, failed.failure.kind) == (Owner.SYSTEM, "no_renewal")
        assert failed.will_retry


@virtual
async def test_after_a_lost_session_it_waits_for_its_own_former_self(tmp_path: Path) -> None:
    async with exclusive(tmp_path, ledger_with()) as one:
        first = await one.runs()
        one.it.guard.hear(SessionOver())
        await asyncio.sleep(5)
        assert one.it.launcher.killed == [first.key]
        one.it.join(2, ttl_ns=TTL)
        await asyncio.sleep(WAIT - 0.1)
        assert one.it.guard.state is State.ACTIVE
        assert len(one.it.launcher.started) == 1
        await one.runs(2)


@virtual
async def test_idempotent_work_goes_on_in_jeopardy_and_pinned_work_stays(tmp_path: Path) -> None:
    ledger = FakeLedger()
    ledger.launch(X, chain(2))
    ledger.launch("p/d/pinned", chain(2))
    ledger.modes["p/d/pinned"] = Mode.PINNED
    async with exclusive(tmp_path, ledger) as one:
        one.it.assign("p/d/pinned")
        await until(lambda: len(one.it.launcher.started) == 2)
        one.beating = False
        await until(lambda: one.it.guard.state is State.JEOPARDY)
        await asyncio.sleep(1)
        assert one.it.launcher.killed == one.it.launcher.cancelled == []
        one.told(*(finished(a.key, {"o0": 1}, a.input_digest) for a in one.it.launcher.started))
        await asyncio.sleep(10)
        assert [a.key.execution for a in one.it.launcher.started[2:]] == [X]
        one.beating = True
        await until(lambda: len(one.it.launcher.started) == 4)


@virtual
async def test_a_retry_waits_until_the_attempt_before_it_is_dead(tmp_path: Path) -> None:
    async with exclusive(tmp_path, ledger_with()) as one:
        first = await one.runs()
        one.it.launcher.unseen = True
        one.told(Broke(first.key, LOST, 1, 2))
        await asyncio.sleep(300)
        assert len(one.it.launcher.started) == 1
        one.it.launcher.unseen = False
        await one.runs(2)
        assert one.it.launcher.killed == [first.key]


@virtual
async def test_one_that_broke_by_itself_is_tried_again_at_once(tmp_path: Path) -> None:
    async with exclusive(tmp_path, ledger_with(retries=1)) as one:
        first = await one.runs()
        one.it.launcher.unseen = True
        one.told(Broke(first.key, Failure(Owner.USER, "raised", "no"), 1, 2))
        await one.runs(2)


ENDS = {
    "failed": (Broke(AttemptKey(X, "b", 1, 1), Failure(Owner.USER, "raised", ""), 1, 2), m.Failed),
    "unreachable": (
        Broke(AttemptKey(X, "b", 1, 1), LOST, 1, 2, unreadable=("file:///x",)), m.Unreachable
    ),
    "no room": (Unplaceable(AttemptKey(X, "b", 1, 1), "none"), m.Released),
}  # fmt: skip


@pytest.mark.parametrize("how", ["failed", "unreachable"])
def test_its_end_is_said_when_everything_of_it_is_dead(tmp_path: Path, how: str) -> None:
    @virtual
    async def story() -> None:
        ledger = ledger_with()
        ledger.launch(X, graph({"a": [], "b": []}))
        async with exclusive(tmp_path, ledger) as one:
            await one.runs(2)
            one.it.launcher.unseen = True
            event, said = ENDS[how]
            one.told(event)
            await asyncio.sleep(300)
            assert ledger.rows[X]["end"] is None
            one.it.launcher.unseen = False
            assert isinstance(await one.it.end(), said)
            assert AttemptKey(X, "a", 1, 1) in one.it.launcher.killed
            await asyncio.sleep(60)
            assert len(one.it.launcher.started) == 2

    story()


@virtual
async def test_who_was_fenced_while_it_waited_for_a_death_says_nothing(tmp_path: Path) -> None:
    ledger = ledger_with()
    async with exclusive(tmp_path, ledger) as one:
        await one.runs()
        one.it.launcher.unseen = True
        one.it.assign(X, want=Want.QUIESCE)
        await asyncio.sleep(10)
        one.it.assign(X, want=Want.CANCEL)
        await asyncio.sleep(10)
        asked = one.it.launcher.asked_to_kill
        assert asked > 1
        await asyncio.sleep(60)
        assert one.it.launcher.asked_to_kill == asked
        assert ledger.rows[X]["end"] is None
        assert one.it.engine.held() == ()


@virtual
async def test_who_was_fenced_during_the_last_look_says_nothing(tmp_path: Path) -> None:
    ledger = ledger_with()
    async with exclusive(tmp_path, ledger) as one:
        await one.runs()
        dying, dead = asyncio.Event(), asyncio.Event()

        async def kill(keys: Sequence[AttemptKey]) -> None:
            dying.set()
            await dead.wait()

        one.it.launcher.kill = kill
        one.it.assign(X, want=Want.QUIESCE)
        await dying.wait()
        one.it.assign(X, want=Want.CANCEL)
        dead.set()
        await asyncio.sleep(60)
        assert ledger.rows[X]["end"] is None


@virtual
async def test_who_was_fenced_in_the_wait_of_a_new_session_says_nothing(tmp_path: Path) -> None:
    ledger = ledger_with()
    ledger.quiescing.add(X)
    async with exclusive(tmp_path, ledger) as one:
        await asyncio.sleep(5)
        one.it.assign(X, want=Want.CANCEL)
        await asyncio.sleep(60)
        assert ledger.rows[X]["end"] is None


@virtual
async def test_a_death_in_jeopardy_starts_nothing(tmp_path: Path) -> None:
    async with exclusive(tmp_path, ledger_with()) as one:
        first = await one.runs()
        one.it.launcher.unseen = True
        one.told(Broke(first.key, LOST, 1, 2))
        await asyncio.sleep(20)
        one.beating = False
        await until(lambda: one.it.guard.state is State.JEOPARDY)
        one.it.launcher.unseen = False
        await asyncio.sleep(60)
        assert one.it.launcher.killed == [first.key]
        assert len(one.it.launcher.started) == 1


@pytest.mark.parametrize("mode", Mode)
def test_without_room_all_but_pinned_runs_are_let_go_of(tmp_path: Path, mode: Mode) -> None:
    @virtual
    async def story() -> None:
        ledger = ledger_with(mode)
        async with exclusive(tmp_path, ledger) as one:
            first = await one.runs()
            one.told(Unplaceable(first.key, "no cores"))
            await asyncio.sleep(10)
            end = ledger.rows[X]["end"]
            assert (end is None) == (mode is Mode.PINNED)
            assert one.it.launcher.killed == ([first.key] if mode is Mode.EXCLUSIVE else [])

    story()


@virtual
async def test_one_that_outlived_the_agent_is_taken_over_by_the_claim(tmp_path: Path) -> None:
    ledger = ledger_with()
    async with exclusive(tmp_path, ledger) as one:
        first = await one.runs()
    found = {first.key: first.input_digest}
    async with exclusive(tmp_path, ledger, found=found, cluster_epoch=2) as one:
        assert one.it.launcher.adopted == []
        await until(lambda: one.it.engine.held())
        await until(lambda: one.it.launcher.adopted)
        assert one.it.launcher.adopted == [first.key]
        one.told(finished(first.key, {"o0": 1}, first.input_digest))
        assert isinstance(await one.it.end(), m.Succeeded)


@virtual
async def test_one_of_other_inputs_is_dead_before_its_node_runs(tmp_path: Path) -> None:
    ledger = ledger_with()
    stale = AttemptKey(X, "a", 1, 1)
    async with exclusive(tmp_path, ledger, found={stale: "of other inputs"}) as one:
        one.it.launcher.unseen = True
        await asyncio.sleep(100)
        assert one.it.launcher.started == []
        one.it.launcher.unseen = False
        await one.runs()
        assert one.it.launcher.killed == [stale]
        assert one.it.launcher.adopted == []


@virtual
async def test_at_a_newer_epoch_it_waits_for_the_attempts_of_the_older(tmp_path: Path) -> None:
    ledger = ledger_with()
    async with exclusive(tmp_path, ledger) as one:
        first = await one.runs()
        one.it.launcher.unseen = True
        ledger.rows[X]["epoch"] = 3
        one.it.assign(X, epoch=3)
        await until(lambda: one.it.engine.held() == (m.Wish(X, 3),))
        await asyncio.sleep(100)
        assert len(one.it.launcher.started) == 1
        one.it.launcher.unseen = False
        assert (await one.runs(2)).key.epoch == 3
        assert one.it.launcher.killed == [first.key]


@virtual
async def test_an_unknown_class_is_refused(tmp_path: Path) -> None:
    ledger = ledger_with()
    ledger.modes[X] = "sometimes"  # type: ignore[assignment]
    async with exclusive(tmp_path, ledger) as one:
        end = await one.it.end()
        assert isinstance(end, m.Failed)
        assert (end.failure.owner, end.failure.kind) == (Owner.CONFIG, "mode")
