"""The steps of the stories: each one small, safe to repeat, and checked by the fence, not by
memory.

Called by Temporal through `registry.py`; reads and writes rows, asks the router, hands placing to
`dispatch`. A row's own epoch and phase win over what a story believes.
"""

import logging
from collections.abc import Sequence
from typing import TypedDict

from whimbrel.service.crash import crash_point

from control_plane.database import Database
from control_plane.executions.dispatch import Dispatch, Dispatched
from control_plane.executions.timeline import Entry, tell
from control_plane.ledger.fence import FenceRow, locked
from control_plane.movement.guard import Sight, mass_loss, returned
from control_plane.movement.reach import Reach
from control_plane.movement.rows import (
    current,
    decision,
    mark_staying,
    now_ns,
    orphans,
    owned_rows,
    phase_of,
    session_over,
    to_nobody,
    traceparents,
)
from control_plane.movement.steps import (
    Batch,
    Failover,
    Hold,
    Loss,
    Move,
    Placed,
    Released,
    Summary,
    Taken,
    failover_id,
    move_id,
)
from control_plane.movement.summaries import count_taken, note, open_summary, taken_so_far
from control_plane.registry.graphs import Graphs
from control_plane.routing.port import LiveCluster, Router, Snapshot

log = logging.getLogger(__name__)


class Session(TypedDict):
    """Keyword arguments that name a lost session."""

    cluster: str
    cluster_epoch: int


class MovementSteps:
    """`Steps` on SQL and the router."""

    def __init__(
        self, database: Database, *, router: Router, dispatch: Dispatch, graphs: Graphs
    ) -> None:
        self.database = database
        self.router = router
        self.dispatch = dispatch
        self.reach = Reach(database, router, graphs)

    async def watch_loss(self, hold: Hold) -> Loss:
        """One loss or many? Says so in the summary and in the runs' own stories, once."""
        snapshot = await self.router.snapshot()
        sights = [sight(cluster) for cluster in snapshot.clusters]
        why = mass_loss(sights, since_ns=hold.since_ns, ttl_ms=snapshot.ttl_ms)
        session = Session(cluster=hold.cluster, cluster_epoch=hold.cluster_epoch)
        async with self.database.write() as connection:
            before = await open_summary(connection, **session)
            if why and not before and not hold.ended:
                log.warning("takeover of %s is held: %s", hold.cluster, why)
                await note(connection, held=why, **session)
                owned = await owned_rows(connection, hold.cluster, hold.cluster_epoch, limit=1000)
                await tell(
                    connection,
                    [
                        Entry(row.execution, row.epoch, "held", hold.cluster, why)
                        for row, _ in owned
                    ],
                )
        if why and hold.ended:
            log.warning("hold of %s ends after %.0f s: %s", hold.cluster, hold.held_seconds, why)
        back = returned(sights, cluster=hold.cluster, cluster_epoch=hold.cluster_epoch)
        return Loss(hold=why, returned=back)

    async def take_over_batch(self, batch: Batch) -> Taken:
        """Up to `limit` rows of the lost session leave it; also those that a crash left
        half-way."""
        story, started = failover_id(batch.cluster, batch.cluster_epoch), now_ns()
        async with self.database.write() as connection:
            half_way = await orphans(connection, story, limit=batch.limit)
            owned = await owned_rows(
                connection, batch.cluster, batch.cluster_epoch, limit=batch.limit - len(half_way)
            )
            fenced = await to_nobody(connection, owned, story=story)
            await mark_staying(connection, batch.cluster, batch.cluster_epoch)
            if fenced:
                session = Session(cluster=batch.cluster, cluster_epoch=batch.cluster_epoch)
                await count_taken(connection, taken=len(fenced), **session)
        rows = [*half_way, *fenced]
        if not rows:
            return Taken(taken=0, waiting=0, left=bool(owned))
        crash_point("takeover.after_fence")
        snapshot = await self.router.snapshot()
        await self.reach.declare(rows, snapshot=snapshot, lost=batch.cluster)
        crash_point("takeover.after_declare")
        done = await self._dispatch(rows, snapshot, batch.cluster, batch.cluster_epoch, "failover")
        crash_point("takeover.after_dispatch")
        await self._trace(done, lost=batch.cluster, started_ns=started)
        return Taken(taken=len(rows), waiting=sum(1 for item in done if not item.cluster))

    async def summarize(self, story: Failover) -> Summary:
        session = Session(cluster=story.cluster, cluster_epoch=story.cluster_epoch)
        async with self.database.write() as connection:
            await open_summary(connection, **session)
            taken = await taken_so_far(connection, **session)
            moved = max(0, taken - story.waiting)
            await note(connection, moved=moved, waiting=story.waiting, ended_ns=now_ns(), **session)
        log.info("failover of %s: %d moved, %d wait", story.cluster, moved, story.waiting)
        return Summary(moved=moved, waiting=story.waiting, **session)

    async def release(self, move: Move) -> Released:
        """Nobody's, with what is out of reach declared. A row that has gone on is left alone."""
        story = move_id(move.execution, move.epoch)
        snapshot = await self.router.snapshot()
        async with self.database.write() as connection:
            row = (await locked(connection, [move.execution])).get(move.execution)
            rows: list[FenceRow] = []
            if row and not row.owner_cluster and not row.terminal:
                ours = row.decision_digest == decision(story, move.execution)
                if row.epoch == move.epoch or (row.epoch == move.epoch + 1 and ours):
                    rows = [row]
            elif row and row.epoch == move.epoch and session_over(row, snapshot):
                phase = await phase_of(connection, move.execution)
                rows = await to_nobody(connection, [(row, phase)], story=story)
        if not rows:
            return Released(ours=False)
        crash_point("takeover.after_fence")
        await self.reach.declare(rows, snapshot=snapshot, lost="")
        crash_point("takeover.after_declare")
        return Released(ours=True)

    async def place(self, move: Move) -> Placed:
        done = await self.dispatch([move.execution], cause=move.cause, moving=True)
        crash_point("takeover.after_dispatch")
        if done:
            return Placed(cluster=done[0].cluster, epoch=done[0].epoch)
        # Nothing to do any more: claimed, ended, or placed by somebody else.
        async with self.database.read() as connection:
            row = await current(connection, move.execution)
        return Placed(cluster=row.owner_cluster if row else "", epoch=row.epoch if row else 0)

    async def claimed(self, move: Move) -> bool:
        async with self.database.read() as connection:
            row = await current(connection, move.execution)
        return row is None or row.terminal or row.epoch > move.epoch or row.owner_cluster_epoch > 0

    async def _dispatch(
        self, rows: Sequence[FenceRow], snapshot: Snapshot, lost: str, session: int, cause: str
    ) -> list[Dispatched]:
        back = returned([sight(c) for c in snapshot.clusters], cluster=lost, cluster_epoch=session)
        names = [row.execution for row in rows]
        avoid = {} if back else {name: [lost] for name in names}
        return await self.dispatch(names, cause=cause, avoid=avoid, moving=True)

    async def _trace(self, done: Sequence[Dispatched], *, lost: str, started_ns: int) -> None:
        """The failover in each run's own trace, beside the attempts that it cut off."""
        async with self.database.read() as connection:
            traces = await traceparents(connection, [item.execution for item in done])
        for item in done:
            self.dispatch.spans.record(
                "failover",
                traces.get(item.execution, ""),
                started_ns=started_ns,
                attributes={
                    "execution": item.execution,
                    "epoch": item.epoch,
                    "lost": lost,
                    "cluster": item.cluster,
                },
            )


def sight(cluster: LiveCluster) -> Sight:
    return Sight(
        cluster=cluster.name,
        alive=cluster.alive,
        cluster_epoch=cluster.cluster_epoch,
        lost_since_ns=cluster.lost_since_ns,
    )
