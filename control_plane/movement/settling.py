"""The steps of a planned move from RELEASED on: copy what is new, place, see it claimed and run.

Called by Temporal through `registry.py`; hands placing to `dispatch`, whose fence decides between
this story and whoever else looks at the run.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

from sqlalchemy import select
from whimbrel.errors import Refused
from whimbrel.service.crash import crash_point

from control_plane.clusters.service import CLUSTER
from control_plane.database import Database
from control_plane.executions.dispatch import Dispatch, Dispatched
from control_plane.executions.timeline import Entry, tell
from control_plane.ledger.fence import FenceRow
from control_plane.movement import journal
from control_plane.movement.planned import (
    WATCH_SECONDS,
    End,
    Migrate,
    Migrated,
    Send,
    Stage,
    Wait,
    migrate_id,
)
from control_plane.movement.rows import current, now_ns, traceparents
from control_plane.movement.standing import first_work
from control_plane.registry.graphs import Graphs

HAND_OVER_SECONDS = 20.0
"""The run stands still meanwhile: what takes longer is read from where it is."""

Copied = Callable[..., Awaitable[None]]


class Settling:
    def __init__(
        self, database: Database, *, dispatch: Dispatch, graphs: Graphs, copied: Copied,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self.database = database
        self.dispatch = dispatch
        self.graphs = graphs
        self.copied = copied
        self.clock = clock

    async def hand_over(self, story: Migrate) -> Stage:
        """The last checkpoint and outputs; all the rest was copied while the source ran."""
        async with self.database.read() as connection:
            mine = await journal.migration(connection, story.execution, story.number)
            region = select(CLUSTER.c.region).where(CLUSTER.c.name == mine["to_cluster"])
            found = (await connection.execute(region)).scalar_one_or_none()
        if found:
            with suppress(Refused):  # the router refuses that target too
                await self.copied(story, mine["to_cluster"], found, seconds=HAND_OVER_SECONDS)
        crash_point("migrate.after_hand_over")
        return Stage("go")

    async def send(self, send: Send) -> Stage:
        """To the target, else back, else to whoever takes it; for a repeat, to where it is."""
        story, name = send.story, send.story.execution
        async with self.database.write() as connection:
            mine = await journal.migration(connection, name, story.number)
            row = await current(connection, name)
            if row is None or row.terminal:
                return Stage("ENDED", why="the run has ended")
            if mine["phase"] == "RELEASED":
                await journal.note(connection, name, story.number, phase="FENCE")
        source, target = mine["from_cluster"], mine["to_cluster"]
        late = send.unclaimed_epoch == row.epoch
        places = [[source], []] if late else [[target], [source], []]
        for only in places:
            went = await self._dispatch(story, only, again=late and row.owner_cluster != "")
            if went and went.cluster and not (late and went.epoch == row.epoch):
                return await self._assigned(story, mine, went, late=late)
        async with self.database.read() as connection:
            row = await current(connection, name)
        if row is None or row.terminal:
            return Stage("ENDED", why="the run has ended")
        if row.owner_cluster:  # somebody else was quicker; or nobody but who does not claim it
            went = Dispatched(name, row.epoch, row.owner_cluster)
            return await self._assigned(story, mine, went, late=late)
        return Stage("FAILED", epoch=row.epoch, reason="no_place", why="nobody takes it: it waits")

    async def _dispatch(self, story: Migrate, only: list[str], *, again: bool) -> Dispatched | None:
        name = story.execution
        done = await self.dispatch(
            [name], cause=story.cause, again=again, only={name: only} if only else {}, moving=True
        )
        crash_point("migrate.after_dispatch")
        return done[0] if done else None

    async def _assigned(
        self, story: Migrate, mine: journal.Row, went: Dispatched, *, late: bool
    ) -> Stage:
        target = mine["to_cluster"]
        values: dict[str, object] = {"phase": "ASSIGN"}
        if went.cluster != target and not mine["reason"]:
            reason = "unclaimed" if late else "target_refused"
            said = "did not claim it in time" if late else "refused it"
            values |= {"reason": reason, "why": f"{target} {said}: it went to {went.cluster}"}
        async with self.database.write() as connection:
            if mine["phase"] not in ("CLAIMED", "RESUMED"):
                await journal.note(connection, story.execution, story.number, **values)
        return Stage("placed", went.cluster, went.epoch)

    async def claimed(self, wait: Wait) -> Stage:
        story, began = wait.story, self.clock()
        while True:
            async with self.database.read() as connection:
                row = await current(connection, story.execution)
            if row is None or row.terminal:
                return Stage("ENDED", why="the run has ended")
            if not row.owner_cluster and row.epoch > wait.epoch:
                return Stage("TAKEN_OVER", epoch=row.epoch, why="its new cluster was lost")
            if not row.owner_cluster:
                return Stage("unclaimed", epoch=row.epoch)  # let go at once
            if row.owner_cluster_epoch > 0:
                await self._note_claimed(story, row)
                return Stage("claimed", row.owner_cluster, row.epoch)
            if self.clock() - began >= wait.seconds:
                return Stage("unclaimed", epoch=row.epoch)
            await asyncio.sleep(WATCH_SECONDS)

    async def _note_claimed(self, story: Migrate, row: FenceRow) -> None:
        async with self.database.write() as connection:
            mine = await journal.migration(connection, story.execution, story.number)
            if mine["claimed_ns"] == 0:
                await journal.note(
                    connection, story.execution, story.number, phase="CLAIMED", claimed_ns=now_ns()
                )
                text = f"from {mine['from_cluster']} ({migrate_id(story.execution, story.number)})"
                entry = Entry(story.execution, row.epoch, "moved", row.owner_cluster, text)
                await tell(connection, [entry])

    async def resumed(self, wait: Wait) -> Stage:
        """User code runs at the new epoch, or there is none to run. Late: the move is done, only
        that is not known."""
        story, began = wait.story, self.clock()
        while True:
            async with self.database.write() as connection:
                row = await current(connection, story.execution)
                first = await first_work(
                    connection, self.graphs, execution=story.execution, epoch=wait.epoch
                )
                if first is not None:
                    mine = await journal.migration(connection, story.execution, story.number)
                    at = max(first, mine["quiesced_ns"])
                    await journal.note(
                        connection, story.execution, story.number, phase="RESUMED", resumed_ns=at
                    )
                    return Stage("resumed", epoch=wait.epoch)
            late = self.clock() - began >= wait.seconds
            if row is None or row.epoch > wait.epoch or not row.owner_cluster or late:
                return Stage("claimed", epoch=wait.epoch)
            await asyncio.sleep(WATCH_SECONDS)

    async def end(self, end: End) -> Migrated:
        story = end.story
        async with self.database.write() as connection:
            mine = await journal.migration(connection, story.execution, story.number)
            row = await current(connection, story.execution)
            where = row.owner_cluster if row and not row.terminal else ""
            if mine["ended_ns"]:
                return Migrated(mine["phase"], where)
            phase = {"resumed": "RESUMED", "claimed": "CLAIMED"}.get(end.phase, end.phase)
            reason, why = end.reason or mine["reason"], end.why or mine["why"]
            if phase in ("RESUMED", "CLAIMED") and where == mine["from_cluster"]:
                phase = "FAILED"
            if phase == "REFUSED" or phase == "FAILED":
                epoch = row.epoch if row else mine["from_epoch"]
                kind = "refused" if phase == "REFUSED" else "stayed"
                await tell(connection, [Entry(story.execution, epoch, kind, where, why)])
            values = {"phase": phase, "reason": reason, "why": why, "ended_ns": now_ns()}
            await journal.note(connection, story.execution, story.number, **values)
            traces = await traceparents(connection, [story.execution])
        self.dispatch.spans.record(
            "migrate",
            traces.get(story.execution, ""),
            started_ns=mine["requested_ns"],
            attributes={
                "execution": story.execution,
                "from": mine["from_cluster"],
                "cluster": where,
                "phase": phase,
            },
        )
        return Migrated(phase, where)
