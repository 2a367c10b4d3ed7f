"""One batch of an agent's events, recorded in one transaction, each item checked against the
fence.

Called by `service.py` with the open transaction; first the cursor row (it serialises the
batches of one session), then the fences in order, then everything else set-based. Answers what
is not plainly committed.
"""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection
from whimbrel.errors import Fenced

from control_plane.database import exclusive, table
from control_plane.executions.timeline import Entry, tell
from control_plane.ledger import rows
from control_plane.ledger.endings import Endings
from control_plane.ledger.events import (
    Batch,
    Committed,
    Event,
    Failed,
    Output,
    Released,
    Result,
    Saved,
    Status,
    Succeeded,
    Unreachable,
    Verdict,
)
from control_plane.ledger.fence import FenceRow, locked, owns, store
from control_plane.ledger.repeated import repeated
from control_plane.ledger.restored import adopt_session, fence_above
from control_plane.ledger.store import EventCursor, Wakeup
from control_plane.registry.graphs import Graphs

LOG = logging.getLogger(__name__)
CURSOR = table(EventCursor)
WAKEUP = table(Wakeup)


@dataclass(slots=True)
class Work:
    """What the walk over a batch found, to be written afterwards."""

    outputs: list[tuple[int, Event, Output]]
    states: list[tuple[Event, Status]]
    checkpoints: list[tuple[int, Event, Saved]]
    ends: dict[str, tuple[int, Event]]
    after_end: list[tuple[int, Event]]
    verdicts: list[Verdict]
    stops: dict[str, int]
    """Execution -> index of its first objection. What it says afterwards may have been made from
    what was refused, so its outputs, checkpoints and endings are not taken."""

    def taken(self, index: int, event: Event) -> bool:
        """False: it comes after an objection, and is answered so that the agent claims anew."""
        taken = index <= self.stops.get(event.execution, index)
        if not taken:
            self.verdicts.append(Verdict(index, Result.INCOMPLETE, event.epoch))
        return taken

    def running(self) -> set[str]:
        """Executions of which something runs or has run."""
        runs = {event.execution for event, status in self.states if status.started_ns}
        return runs | {event.execution for _, event, _ in self.outputs}


class Behind(Exception):
    """An agent knows a newer epoch than the rows, which are only shared: to be done again."""


async def commit(
    connection: AsyncConnection, batch: Batch, graphs: Graphs, *, behind: bool = False
) -> Committed:
    """`behind`: rows that turn out to be older than the agent are fenced above it."""
    cursor = await lock_cursor(connection, batch)
    if batch.first > cursor + 1:
        return Committed(cursor=cursor, gap_expected=cursor + 1)
    settled = min(max(cursor + 1 - batch.first, 0), len(batch.events))
    verdicts = await repeated(connection, batch, settled)
    fresh = list(enumerate(batch.events))[settled:]
    if not fresh:
        return Committed(cursor=cursor, verdicts=tuple(verdicts))
    fences = await locked(
        connection,
        [event.execution for _, event in fresh],
        for_update=behind or any(ends(event) for _, event in fresh),
    )
    if above := ahead(fresh, fences):
        if not behind:
            raise Behind
        fences |= await fence_above(connection, above, by=batch.cluster)
    work = walk(batch, fresh, fences, stops=objected(batch, verdicts))
    await write_outputs(connection, batch, work)
    # Before the states: whether the end of an attempt counts depends on what it has saved.
    await rows.upsert_checkpoints(
        connection,
        [(event, saved) for index, event, saved in work.checkpoints if work.taken(index, event)],
    )
    await rows.upsert_states(connection, work.states, cluster=batch.cluster)
    await rows.waits_no_more(connection, work.running())
    moved = await write_endings(connection, work, fences, graphs)
    cursor = batch.first + len(batch.events) - 1
    await connection.execute(
        update(CURSOR)
        .where(CURSOR.c.cluster == batch.cluster, CURSOR.c.cluster_epoch == batch.cluster_epoch)
        .values(cursor=cursor)
    )
    return Committed(
        cursor=cursor,
        verdicts=tuple(sorted([*verdicts, *work.verdicts], key=lambda verdict: verdict.index)),
        touched=tuple(dict.fromkeys(event.execution for _, event in fresh)),
        moved=moved,
    )


async def lock_cursor(connection: AsyncConnection, batch: Batch) -> int:
    found = await connection.execute(
        exclusive(
            select(CURSOR.c.cursor).where(
                CURSOR.c.cluster == batch.cluster, CURSOR.c.cluster_epoch == batch.cluster_epoch
            )
        )
    )
    cursor = found.scalar_one_or_none()
    if cursor is None and await adopt_session(connection, batch.cluster, batch.cluster_epoch):
        return 0
    if cursor is None:
        raise Fenced(f"{batch.cluster} has no session with cluster epoch {batch.cluster_epoch}")
    return cursor


def ahead(fresh: Sequence[tuple[int, Event]], fences: Mapping[str, FenceRow]) -> dict[str, int]:
    """Epochs of events above their rows'. Only a restored backup can be behind an agent."""
    seen: dict[str, int] = {}
    for _, event in fresh:
        row = fences.get(event.execution)
        if row is None or event.epoch > row.epoch:
            seen[event.execution] = max(event.epoch, seen.get(event.execution, 0))
    return seen


def ends(event: Event) -> bool:
    """Does it change who may write? Then the row is locked for that from the start: two batches
    that both share it and then both want more would deadlock."""
    return isinstance(event.body, Succeeded | Failed | Released | Unreachable)


def objected(batch: Batch, verdicts: Sequence[Verdict]) -> dict[str, int]:
    """Where the repeated part of a batch, whose answer was lost, stops its fresh part."""
    stops: dict[str, int] = {}
    for verdict in verdicts:
        event = batch.events[verdict.index]
        if verdict.result is Result.CONFLICT or verdict.current_epoch == event.epoch:
            stops.setdefault(event.execution, verdict.index)
    return stops


def walk(
    batch: Batch,
    fresh: Sequence[tuple[int, Event]],
    fences: dict[str, FenceRow],
    *,
    stops: dict[str, int],
) -> Work:
    """Sorts the events by what is to be written; pure."""
    work = Work([], [], [], {}, [], [], stops)
    for index, event in fresh:
        row = fences.get(event.execution)
        if row is None or not owns(
            row, epoch=event.epoch, cluster=batch.cluster, cluster_epoch=batch.cluster_epoch
        ):
            work.verdicts.append(Verdict(index, Result.FENCED, row.epoch if row else 0))
            continue
        if event.execution in work.ends:
            work.after_end.append((index, event))
            continue
        match event.body:
            case Output() as output:
                work.outputs.append((index, event, output))
            case Status() as status:
                work.states.append((event, status))
            case Saved() as saved:
                work.checkpoints.append((index, event, saved))
            case Succeeded() | Failed() | Released() | Unreachable():
                work.ends[event.execution] = (index, event)
    return work


async def write_outputs(connection: AsyncConnection, batch: Batch, work: Work) -> None:
    first: dict[tuple[str, str], int] = {}
    for index, event, output in work.outputs:
        first.setdefault((event.execution, output.node), index)
    inserted = await rows.insert_outputs(
        connection,
        [
            rows.output_row(
                event.execution,
                event.epoch,
                output,
                cluster=batch.cluster,
                cluster_epoch=batch.cluster_epoch,
            )
            for index, event, output in work.outputs
            if first[event.execution, output.node] == index
        ],
    )
    late = [
        (event.execution, output.node)
        for index, event, output in work.outputs
        if first[event.execution, output.node] != index
        or (event.execution, output.node) not in inserted
    ]
    kept = await rows.live(connection, late)
    withdrawn: list[tuple[str, str]] = []
    for index, event, output in work.outputs:
        key = (event.execution, output.node)
        new = first[key] == index and key in inserted
        if not work.taken(index, event):
            if new:
                withdrawn.append(key)
        elif not new:
            verdict = against(index, output, kept[key])
            work.verdicts.append(verdict)
            if verdict.result is Result.CONFLICT:
                work.stops[event.execution] = index
    await rows.withdraw(connection, withdrawn)


def against(index: int, output: Output, kept: Output) -> Verdict:
    if output.output_digest == kept.output_digest:
        return Verdict(index, Result.ALREADY_COMMITTED, kept.epoch)
    LOG.error("alarm: two results of one node; the first stays", extra={"node": output.node})
    return Verdict(index, Result.CONFLICT, kept.epoch, kept)


async def write_endings(
    connection: AsyncConnection, work: Work, fences: dict[str, FenceRow], graphs: Graphs
) -> tuple[str, ...]:
    """Changes of ownership, and answers for what came after them in the same batch."""
    if not work.ends and not work.after_end:
        return ()
    endings = Endings(connection, graphs)
    after: list[FenceRow] = []
    story: list[Entry] = []
    for execution, (index, event) in work.ends.items():
        if not work.taken(index, event):
            continue
        ending = await endings.end(fences[execution], event)
        if ending is None:
            work.verdicts.append(Verdict(index, Result.INCOMPLETE, event.epoch))
            continue
        after.append(ending.row)
        story.append(ending.entry)
    moved = {row.execution: row for row in after}
    for index, event in work.after_end:
        if event.execution in moved:
            verdict = Verdict(index, Result.FENCED, moved[event.execution].epoch)
        else:
            verdict = Verdict(index, Result.INCOMPLETE, event.epoch)
        work.verdicts.append(verdict)
    await store(connection, after)
    await tell(connection, story)
    if after:
        now = time.time_ns()
        await connection.execute(
            insert(WAKEUP),
            [
                {
                    "execution": row.execution,
                    "kind": "finished" if row.terminal else "ownerless",
                    "created_ns": now,
                }
                for row in after
            ],
        )
    return tuple(moved)
