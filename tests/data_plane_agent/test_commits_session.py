"""The commit loop and the session: nothing is sent without one, and no answer is taken of an old
one."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from data_plane_agent import messages as m
from data_plane_agent.commits import Commits, Settled
from data_plane_agent.fence import Reconciled, Welcomed
from data_plane_agent.guard import Guard
from data_plane_agent.outbox import Outbox
from tests.data_plane_agent.engine_under_test import HOUR, until
from tests.data_plane_agent.test_commits import Ledger, NoPause, entry

pytestmark = pytest.mark.anyio


@dataclass
class Sessions(Ledger):
    """Remembers under which session it was told, and answers when it may."""

    told: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])
    may_answer: asyncio.Event = field(default_factory=asyncio.Event)

    async def commit(self, events: Sequence[bytes], *, first: int, cluster_epoch: int) -> m.Receipt:
        self.told.append((cluster_epoch, first))
        await self.may_answer.wait()
        return await super().commit(events, first=first, cluster_epoch=cluster_epoch)


@dataclass
class Scene:
    outbox: Outbox
    commits: Commits
    settled: list[int]
    now: int = 1
    asked: int = 0

    def clock(self) -> int:
        self.asked += 1
        return self.now


@asynccontextmanager
async def scene(folder: Path, ledger: Ledger) -> AsyncGenerator[Scene]:
    it = Scene.__new__(Scene)
    settled: list[int] = []
    guard, outbox = Guard(clock=lambda: it.clock()), Outbox(folder / "outbox")

    async def on_settled(batch: Settled) -> None:
        settled.append(len(batch))

    commits = Commits(
        outbox=outbox, ledger=ledger, guard=guard, on_settled=on_settled, renew=lambda: None,
        pause=NoPause(),
    )  # fmt: skip
    it.__init__(outbox, commits, settled)
    guard.hear(Welcomed(0, HOUR, False))
    guard.hear(Reconciled())
    tasks = [asyncio.create_task(outbox.run()), asyncio.create_task(commits.run())]
    try:
        yield it
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_nothing_is_sent_in_jeopardy(tmp_path: Path) -> None:
    ledger = Sessions(set())
    async with scene(tmp_path, ledger) as it:
        it.now = 2 * HOUR
        asked = it.asked
        it.outbox.put([entry("p/d/1")])
        it.commits.open(1)
        await until(lambda: it.asked >= asked + 2 or ledger.told)
        assert ledger.told == []


async def test_the_answer_of_an_old_session_settles_nothing(tmp_path: Path) -> None:
    """It was about the old session's numbers; the new one's ledger has heard nothing yet."""
    ledger = Sessions(set())
    async with scene(tmp_path, ledger) as it:
        it.outbox.put([entry("p/d/1"), entry("p/d/2")])
        it.commits.open(1)
        await until(lambda: ledger.told)
        it.commits.shut()
        it.outbox.renumber(lambda one: True)
        it.commits.open(2)
        ledger.may_answer.set()
        await until(lambda: it.settled)
        assert ledger.told == [(1, 1), (2, 1)]
        assert it.settled == [2]
