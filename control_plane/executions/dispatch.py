"""Place + fence + assign, as one idempotent step: a run leaves here with an owner, or waits with a
reason.

Called by launch (through `Dispatcher`), the sweeper and movement; asks the router where, raises
the epoch in SQL, and only then asks the router to assign. No transaction is open meanwhile.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import bindparam, update
from sqlalchemy.ext.asyncio import AsyncConnection
from whimbrel.service.crash import crash_point
from whimbrel.spec import Assignment, Phase, Want, canonical, sha256

from control_plane import documents
from control_plane.database import Database, table
from control_plane.executions import no_room
from control_plane.executions.decisions import Pending, keep_decisions, pending
from control_plane.executions.exclusive import REASON as OLD_COPY
from control_plane.executions.exclusive import OldCopies
from control_plane.executions.lifecycle import move
from control_plane.executions.loaded import Loaded, assigned, exclusive, load, unowned
from control_plane.executions.store import Execution
from control_plane.executions.timeline import Entry, tell
from control_plane.ledger.fence import FenceRow, FenceWish, fence, locked
from control_plane.ledger.restored import compare_refusals
from control_plane.routing.port import Decision, Requirement, Router
from control_plane.traces.spans import Spans

EXECUTION = table(Execution)
PINNED = "pinned"
"""Why a run waits that only one cluster may have, and that one does not take it now."""

Names = Mapping[str, Sequence[str]]
"""Clusters by execution."""

BATCH = 256
"""Executions of one transaction. Smaller costs throughput, larger holds the writer longer."""


@dataclass(frozen=True, slots=True)
class Dispatched:
    """Where an execution stands afterwards. `cluster` "" = it waits and `reason` says why."""

    execution: str
    epoch: int
    cluster: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Ask:
    """The arguments of one dispatch."""

    cause: str
    again: bool
    avoid: Names
    only: Names
    moving: bool


class Dispatch:
    """`await dispatch(executions, cause=...)`; safe to repeat, interrupt and run twice at once."""

    def __init__(
        self, database: Database, router: Router, spans: Spans | None = None, *,
        no_room_seconds: float = 300.0, clock: Callable[[], int] = time.time_ns,
        old_copies: OldCopies | None = None,
    ) -> None:  # fmt: skip
        """A run is kept away for `no_room_seconds` from a cluster that had no room for it."""
        self.old_copies = old_copies or OldCopies(database, router)
        self.database = database
        self.router = router
        self.spans = spans or Spans()
        self.no_room_seconds = no_room_seconds
        self.clock = clock

    async def __call__(
        self, executions: Sequence[str], *, cause: str = "", again: bool = False,
        avoid: Mapping[str, Sequence[str]] = {}, only: Mapping[str, Sequence[str]] = {},
        moving: bool = False,
    ) -> list[Dispatched]:  # fmt: skip
        """Places what nobody owns; repeats the assignment of what is owned and not claimed.

        `again` places also the unclaimed ones anew, at the next epoch (the time to claim has
        passed). `avoid` names clusters that an execution must not go to, `only` those that alone
        are asked; not taken there, it stays as it is. `moving`: the caller is the story that looks
        after those in MOVING; they are left to it. `cause` "" = that of its last, unfulfilled
        decision, else "launch".
        """
        ask = Ask(cause, again, avoid, only, moving)
        done: list[Dispatched] = []
        names = list(dict.fromkeys(executions))
        for start in range(0, len(names), BATCH):
            done += await self._batch(names[start : start + BATCH], ask)
        return done

    async def _batch(self, names: Sequence[str], ask: Ask) -> list[Dispatched]:
        async with self.database.read() as connection:
            loaded = await load(connection, names)
            before = await pending(connection, loaded)
        standing = [item for item in loaded.values() if assigned(item.row)]
        to_place = [item for item in loaded.values() if unowned(item.row)]
        if ask.again:
            to_place += standing
        if not ask.moving:
            to_place = [item for item in to_place if item.phase != Phase.MOVING]
        living = await self.old_copies.living([item.row for item in to_place if exclusive(item)])
        decisions = await self._place(
            [item for item in to_place if item.row.execution not in living], ask
        )
        decisions += [waits(name, self.clock()) for name in sorted(living)]
        crash_point("dispatch.after_place")
        started = time.time_ns()
        async with self.database.write() as connection:
            fenced = await apply(
                connection, [(loaded[d.execution], d) for d in decisions], ask, before
            )
        self._record("fence", started, fenced, loaded)
        crash_point("dispatch.after_fence")
        moved = {item.execution for item in fenced}
        kept = [
            Dispatched(item.row.execution, item.row.epoch, item.row.owner_cluster)
            for item in standing
            if item.row.execution not in moved
        ]
        await self._assign(fenced, loaded, fresh=True)
        await self._assign(kept, loaded)
        crash_point("dispatch.after_assign")
        return [*fenced, *kept]

    async def _place(self, items: Sequence[Loaded], ask: Ask) -> list[Decision]:
        if not items:
            return []
        started = time.time_ns()
        wanted = [
            replace(
                item.requirement,
                # Who did not claim in time is not asked again while anybody else can be.
                avoid=(
                    *ask.avoid.get(item.row.execution, ()),
                    *filter(None, [item.row.owner_cluster]),
                ),
                only=tuple(ask.only.get(item.row.execution, item.requirement.only)),
            )
            for item in items
        ]
        decisions = [
            replace(decision, reason=PINNED) if item.home and not decision.cluster else decision
            for item, decision in zip(items, await self._place_around(wanted, items), strict=True)
        ]
        self._record("place", started, decisions, {i.row.execution: i for i in items})
        return decisions

    async def _place_around(
        self, wanted: Sequence[Requirement], items: Sequence[Loaded]
    ) -> list[Decision]:
        """Not where there was no room lately; but where nobody else takes it, it waits there as
        well as anywhere, and only for a moment not."""
        now = self.clock()
        marks = [item.no_room for item in items]
        away = [no_room.recent(one, now_ns=now, seconds=self.no_room_seconds) for one in marks]
        decisions = await self.router.place(
            [
                replace(one, avoid=(*one.avoid, *more))
                for one, more in zip(wanted, away, strict=True)
            ]
        )
        back = [i for i, decision in enumerate(decisions) if away[i] and not decision.cluster]
        if not back:
            return decisions
        fresh = {
            i: no_room.recent(marks[i], now_ns=now, seconds=no_room.MOMENT_SECONDS) for i in back
        }
        again = await self.router.place(
            [replace(wanted[i], avoid=(*wanted[i].avoid, *fresh[i])) for i in back]
        )
        for i, decision in zip(back, again, strict=True):
            waits = fresh[i] and not decision.cluster
            why = no_room.reason(items[i].reason)
            decisions[i] = replace(decision, reason=why) if waits else decision
        return decisions

    async def _assign(
        self, items: Sequence[Dispatched], loaded: Mapping[str, Loaded], *, fresh: bool = False
    ) -> None:
        """A repeat says what the row says: never RUN to an owner that is to let go."""
        items = [item for item in items if item.cluster]
        if not items:
            return
        started = time.time_ns()
        assignments = [
            Assignment(
                execution=item.execution,
                epoch=item.epoch,
                cluster=item.cluster,
                want=Want.RUN if fresh else loaded[item.execution].row.want,
                gate=0 if fresh else loaded[item.execution].row.gate,
                traceparent=loaded[item.execution].traceparent,
            )
            for item in items
        ]
        results = await self.router.assign(assignments)
        await compare_refusals(self.database, zip(assignments, results, strict=True))
        self._record("assign", started, items, loaded)

    def _record(
        self,
        name: str,
        started_ns: int,
        items: Sequence[Dispatched | Decision],
        loaded: Mapping[str, Loaded],
    ) -> None:
        for item in items:
            self.spans.record(
                name,
                loaded[item.execution].traceparent,
                started_ns=started_ns,
                attributes={"execution": item.execution, "cluster": item.cluster},
            )


def waits(execution: str, now_ns: int) -> Decision:
    return Decision(execution, "", reason=OLD_COPY, decided_ns=now_ns)


async def apply(
    connection: AsyncConnection,
    decided: Sequence[tuple[Loaded, Decision]],
    ask: Ask,
    before: Mapping[str, Pending],
) -> list[Dispatched]:
    """Fences what found a cluster, marks the rest WAITING; what has changed since is left alone."""
    if not decided:
        return []
    placed = [(item, decision) for item, decision in decided if decision.cluster]
    answers = await fence(connection, [wish(item.row, decision) for item, decision in placed])
    done: list[Dispatched] = []
    kept: list[tuple[Decision, int, str]] = []
    story: list[Entry] = []
    rows: list[dict[str, Any]] = []
    for (item, decision), answer in zip(placed, answers, strict=True):
        if not answer.fenced or answer.row is None or answer.row.owner_cluster != decision.cluster:
            continue
        name, epoch, cluster = item.row.execution, answer.row.epoch, decision.cluster
        why = cause_of(item, ask.cause, before)
        done.append(Dispatched(name, epoch, cluster))
        kept.append((decision, epoch, why))
        story.append(Entry(name, epoch, "placed", cluster, f"in {decision.region} ({why})"))
        story.append(Entry(name, epoch, "fenced", cluster, f"epoch {epoch} belongs to {cluster}"))
        rows.append(change(item, Phase.ASSIGNED, decision))
    waiting = [
        (item, decision) for item, decision in decided if not decision.cluster and unowned(item.row)
    ]
    current = await locked(connection, [item.row.execution for item, _ in waiting])
    for item, decision in waiting:
        name = item.row.execution
        if current.get(name) != item.row:
            continue
        done.append(Dispatched(name, item.row.epoch, "", decision.reason))
        if name in ask.only:
            continue
        if item.phase == Phase.WAITING and same(decision, before.get(name)):
            continue
        kept.append((decision, item.row.epoch + 1, cause_of(item, ask.cause, before)))
        if item.phase != Phase.WAITING:
            story.append(Entry(name, item.row.epoch, "waiting", "", decision.reason))
        rows.append(change(item, Phase.WAITING, decision))
    await keep_decisions(connection, kept)
    await write_phases(connection, rows)
    await tell(connection, story)
    return done


def cause_of(item: Loaded, cause: str, before: Mapping[str, Pending]) -> str:
    if cause:
        return cause
    if (last := before.get(item.row.execution)) is not None:
        return last.cause
    return "fallback" if item.reason in no_room.REASONS else "launch"


def same(decision: Decision, before: Pending | None) -> bool:
    """Nothing new to say of a run that waits; else every look would be a change to its
    followers."""
    return (
        before is not None
        and before.reason == decision.reason
        and before.verdicts == documents.texts(decision.verdicts)
    )


def wish(row: FenceRow, decision: Decision) -> FenceWish:
    return FenceWish(
        execution=row.execution,
        epoch=row.epoch + 1,
        cluster=decision.cluster,
        seen_cluster=row.owner_cluster,
        seen_cluster_epoch=row.owner_cluster_epoch,
        decision_digest=sha256(
            canonical([row.execution, row.epoch + 1, decision.cluster, decision.decided_ns])
        ),
    )


def change(item: Loaded, phase: Phase, decision: Decision) -> dict[str, Any]:
    waits = phase is Phase.WAITING
    return {
        "x": item.row.execution,
        "v_phase": move(item.phase, phase),
        "v_reason": decision.reason if waits else "",
        "v_region": decision.region,
        "v_cluster": decision.cluster,
        # An owner is no place yet: that it waits is over when something of it runs.
        "v_waiting_ns": item.waiting_ns or (time.time_ns() if waits else 0),
    }


async def write_phases(connection: AsyncConnection, rows: Sequence[dict[str, Any]]) -> None:
    if rows:
        names = ("phase", "reason", "region", "cluster", "waiting_ns")
        await connection.execute(
            update(EXECUTION)
            .where(EXECUTION.c.id == bindparam("x"))
            .values({name: bindparam(f"v_{name}") for name in names}),
            rows,
        )
