"""Batches that the ledger can't take: the event at fault ends its own run and holds up no other."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from whimbrel.errors import Fenced, Unreachable, WhimbrelError

from data_plane_agent import codec
from data_plane_agent import commits as module
from data_plane_agent import messages as m
from data_plane_agent.commits import REFUSALS, Commits, Settled
from data_plane_agent.fence import Reconciled, Welcomed
from data_plane_agent.guard import Guard
from data_plane_agent.outbox import Entry, Outbox
from data_plane_agent.pause import Pause

pytestmark = pytest.mark.anyio

HOUR = 3600 * 1_000_000_000


class NoPause(Pause):
    async def wait(self) -> None:
        await asyncio.sleep(0)


@dataclass
class Ledger:
    """Refuses a batch with an event of a poisonous run in it, unless it is its end. `broken` is
    what it says to everything, also to nothing at all; so it is for `outage` calls."""

    poison: set[str]
    broken: WhimbrelError | None = None
    outage: int = 0
    sizes: list[int] = field(default_factory=list)
    kept: list[tuple[str, m.Event]] = field(default_factory=list)

    async def commit(self, events: Sequence[bytes], *, first: int, cluster_epoch: int) -> m.Receipt:
        self.sizes.append(len(events))
        if self.outage > 0:
            self.outage -= 1
            raise WhimbrelError("the database is away")
        if self.broken is not None:
            raise self.broken
        said = [(codec.address(data)[0], codec.decode(data)) for data in events]
        for execution, event in said:
            if execution in self.poison and not isinstance(event, m.Failed):
                raise WhimbrelError("a bug of the ledger's")
        self.kept += [(execution, event) for execution, event in said if event is not None]
        return m.Receipt(first + len(events) - 1)

    async def claim(self, wishes: object, *, cluster_epoch: int) -> list[m.Claimed | m.NotClaimed]:
        raise AssertionError

    async def fetch_spec(self, digest: str) -> bytes:
        raise AssertionError


def entry(execution: str, attempt: int = 1) -> Entry:
    data = codec.encode(m.AttemptRuns("n", attempt, 1), execution=execution, epoch=3)
    return Entry(execution, 3, data, last=False)


@asynccontextmanager
async def committing(
    folder: Path, ledger: Ledger, *entries: Entry, renewals: list[None] | None = None
) -> AsyncIterator[list[tuple[Entry, m.Objection | None]]]:
    guard = Guard(clock=lambda: 1)
    guard.hear(Welcomed(0, HOUR, False))
    guard.hear(Reconciled())
    settled: list[tuple[Entry, m.Objection | None]] = []

    async def on_settled(batch: Settled) -> None:
        settled.extend(batch)

    outbox = Outbox(folder / "outbox")
    commits = Commits(
        outbox=outbox, ledger=ledger, guard=guard, on_settled=on_settled,
        renew=lambda: renewals.append(None) if renewals is not None else None, pause=NoPause(),
    )  # fmt: skip
    outbox.put(entries)
    tasks = [asyncio.create_task(outbox.run()), asyncio.create_task(commits.run())]
    commits.open(1)
    try:
        yield settled
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def all_settled(settled: list[object], count: int) -> None:
    async with asyncio.timeout(20):
        while len(settled) < count:
            await asyncio.sleep(0.001)


async def test_one_poisonous_event_ends_its_run_only(tmp_path: Path) -> None:
    runs = [f"p/d/{n}" for n in range(20)]
    ledger = Ledger({"p/d/13"})
    async with committing(tmp_path, ledger, *map(entry, runs)) as settled:
        await all_settled(settled, 20)  # type: ignore[arg-type]
    assert [execution for execution, _ in ledger.kept] == runs
    [(name, end)] = [item for item in ledger.kept if isinstance(item[1], m.Failed)]
    assert name == "p/d/13"
    assert isinstance(end, m.Failed)
    assert (end.failure.owner, end.failure.kind) == ("system", "event_refused")
    assert "a bug of the ledger's" in end.failure.message
    objections = [(one.execution, objection) for one, objection in settled if objection]
    assert objections == [("p/d/13", m.Objection(0, m.Verdict.FENCED, 4))]


@pytest.mark.fault(27)
@pytest.mark.parametrize("broken", [WhimbrelError("no disk"), Unreachable("away"), Fenced("old")])
async def test_a_ledger_that_takes_nothing_ends_nothing(
    tmp_path: Path, broken: WhimbrelError
) -> None:
    ledger = Ledger(set(), broken)
    async with committing(tmp_path, ledger, entry("p/d/1"), entry("p/d/2")) as settled:
        async with asyncio.timeout(20):
            while len(ledger.sizes) < 10 * REFUSALS:
                await asyncio.sleep(0.001)
        assert settled == []
        ledger.broken = None
        await all_settled(settled, 2)  # type: ignore[arg-type]
    assert [type(event) for _, event in ledger.kept] == [m.AttemptRuns] * 2


@pytest.mark.parametrize("outage", range(1, 4 * REFUSALS))
async def test_an_outage_ends_nothing_whenever_it_ends(tmp_path: Path, outage: int) -> None:
    ledger = Ledger(set(), outage=outage)
    async with committing(tmp_path, ledger, entry("p/d/1")) as settled:
        await all_settled(settled, 1)  # type: ignore[arg-type]
    assert [type(event) for _, event in ledger.kept] == [m.AttemptRuns]


async def test_batches_grow_again(tmp_path: Path) -> None:
    ledger = Ledger({"p/d/0"})
    rest = [entry("p/d/1", attempt) for attempt in range(40)]
    async with committing(tmp_path, ledger, entry("p/d/0"), *rest) as settled:
        await all_settled(settled, 41)  # type: ignore[arg-type]
    assert max(ledger.sizes[-2:]) > 10


@dataclass
class Conflicting(Ledger):
    """Objects to the first event of p/d/1; refuses the first batch if it has more than two."""

    firsts: list[int] = field(default_factory=list)

    async def commit(self, events: Sequence[bytes], *, first: int, cluster_epoch: int) -> m.Receipt:
        if not self.sizes and len(events) > 2:
            self.sizes.append(len(events))
            raise WhimbrelError("no")
        self.firsts.append(first)
        receipt = await super().commit(events, first=first, cluster_epoch=cluster_epoch)
        refused = (m.Objection(0, m.Verdict.CONFLICT, 3),) if first == 1 else ()
        return replace(receipt, objections=refused)


@pytest.mark.parametrize("sent_before", [False, True])
async def test_what_was_said_after_a_refused_event_is_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sent_before: bool
) -> None:
    """The next event gets its number only if it was never sent; else a new session counts anew."""
    if not sent_before:
        monkeypatch.setattr(module, "BATCH_EVENTS", 2)
    ledger, renewals = Conflicting(set()), list[None]()
    names = ["p/d/1", "p/d/2", "p/d/1", "p/d/2"]
    said = [entry(name, attempt) for attempt, name in enumerate(names)]
    async with committing(tmp_path, ledger, *said, renewals=renewals) as settled:
        await all_settled(settled, 2 if sent_before else 3)  # type: ignore[arg-type]
        await asyncio.sleep(0)
        assert (len(renewals), ledger.firsts) == ((1, [1]) if sent_before else (0, [1, 3]))
    assert [one for one, _ in settled] == [said[0], said[1], said[3]][: len(settled)]
