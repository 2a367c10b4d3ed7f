"""What a crash left: taken up from the rows alone, no timer in memory.

Runs in every replica beside the servers; each rung finds its rows and hands them to dispatch,
delivery, the router or movement, all of which are idempotent, so two sweepers do no harm.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, select, update
from whimbrel.errors import Unreachable
from whimbrel.spec import Assignment, Phase, Want

from control_plane import documents
from control_plane.clusters.store import Cluster
from control_plane.database import Database, table
from control_plane.executions import no_room
from control_plane.executions.changes import Changes
from control_plane.executions.delivery import Delivery
from control_plane.executions.dispatch import Dispatch
from control_plane.executions.dispatcher import Dispatcher
from control_plane.executions.lifecycle import move
from control_plane.executions.loaded import IN_TURN
from control_plane.executions.store import Execution
from control_plane.executions.timeline import Entry, tell
from control_plane.executions.waiting import Waiting
from control_plane.ledger.fence import FENCE, end, locked
from control_plane.ledger.restored import compare_refusals, fence_above
from control_plane.movement.journal import request
from control_plane.movement.store import Migration
from control_plane.routing.port import Movement, Router

LOG = logging.getLogger(__name__)
CLUSTER, EXECUTION, MIGRATION = table(Cluster), table(Execution), table(Migration)
SECOND = 1_000_000_000
NO_LIMIT = ("0", "0.0")
"""As a policy's canonical JSON says that a run waits for ever."""

BATCH = 10_000

FRESH_SECONDS = 1.0
"""Rows younger than this are still in the hands of who wrote them. Shorter: work done twice, which
is harmless; longer: a crash's leftovers wait."""

STORY_SECONDS = 10.0
"""An ownerless row in MOVING is left this long to its story before a story is asked for."""

LOST_STORY_SECONDS = 60.0
"""An owner that was asked to let go is left this long to do so when no planned move is open."""

EVERY_SECONDS = 1.0
"""Between two rounds. Longer: what a crash left lies longer; shorter: idle reads."""

KEYS_EVERY_SECONDS = 5.0
"""Between two comparisons of the assignment keys with the rows: how long a lost key stays lost."""


class Sweeper:
    def __init__(
        self, database: Database, router: Router, *, dispatch: Dispatch, dispatcher: Dispatcher,
        delivery: Delivery, movement: Movement, changes: Changes, claim_timeout_seconds: float,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:  # fmt: skip
        self._database = database
        self._router = router
        self._dispatch = dispatch
        self._dispatcher = dispatcher
        self._delivery = delivery
        self._movement = movement
        self._changes = changes
        self._claim_ns = int(claim_timeout_seconds * SECOND)
        self._clock = clock
        self.waiting = Waiting(database, dispatch, changes, clock=clock)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.waiting.run(), name="look at who waits")
            tasks.create_task(self._rounds(), name="sweep in rounds")

    async def _rounds(self) -> None:
        rounds = 0
        while True:
            await self.sweep()
            if rounds % int(KEYS_EVERY_SECONDS / EVERY_SECONDS) == 0:
                await self._rung(self.compare_keys)
            rounds += 1
            await asyncio.sleep(EVERY_SECONDS)

    async def sweep(self) -> None:
        for rung in (
            self.give_up_waiting,  # 1.
            self.unclaimed,  # 2.
            self.storyless,  # 3.
            self.asked_by_nobody,  # 4.
            self.keys_of_ended,  # 5.
            self.suspected,  # 6.
        ):
            await self._rung(rung)

    async def _rung(self, rung: Callable[[], Awaitable[None]]) -> None:
        try:
            await rung()
        except Unreachable as error:
            LOG.debug("%s waits for the router: %s", rung.__name__, error.message)
        except Exception:
            LOG.exception("%s failed", rung.__name__)

    async def _rows(self, *conditions: ColumnElement[bool]) -> Sequence[Any]:
        async with self._database.read() as connection:
            found = await connection.execute(
                select(
                    FENCE, EXECUTION.c.phase, EXECUTION.c.policy, EXECUTION.c.waiting_ns,
                    EXECUTION.c.traceparent,
                )
                .join_from(FENCE, EXECUTION, FENCE.c.execution == EXECUTION.c.id)
                .where(*conditions)
                .order_by(*IN_TURN)
                .limit(BATCH)
            )  # fmt: skip
            return found.mappings().all()

    async def give_up_waiting(self) -> None:
        """`max_wait_seconds` is over: FAILED, with the reason it waited for."""
        now = self._clock()
        for row in await self._rows(
            EXECUTION.c.phase == Phase.WAITING.value,
            FENCE.c.owner_cluster == "",
            *(EXECUTION.c.policy.not_like(f'%"max_wait_seconds":{none},%') for none in NO_LIMIT),
        ):
            limit = documents.policy(row["policy"]).max_wait_seconds
            if limit > 0 and now - row["waiting_ns"] > limit * SECOND:
                await self._give_up(row["execution"], limit)

    async def _give_up(self, execution: str, limit: float) -> None:
        async with self._database.write() as connection:
            before = (await locked(connection, [execution]))[execution]
            found = await connection.execute(
                select(EXECUTION.c.phase, EXECUTION.c.reason).where(EXECUTION.c.id == execution)
            )
            phase, reason = found.one()
            if before.terminal or before.owner_cluster or phase != Phase.WAITING:
                return
            await end(connection, [execution])
            error = no_room.too_long(limit, reason)
            await connection.execute(
                update(EXECUTION)
                .where(EXECUTION.c.id == execution)
                .values(
                    phase=move(phase, Phase.FAILED),
                    error=documents.text(error),
                    ended_ns=self._clock(),
                )
            )
            await tell(
                connection, [Entry(execution, before.epoch + 1, "failed", "", error.message)]
            )
        self._changes.notify([execution])

    async def unclaimed(self) -> None:
        """Fenced to a cluster that does not claim: assigned once more, placed anew after a
        while."""
        now = self._clock()
        rows = await self._rows(
            FENCE.c.terminal.is_(False),
            FENCE.c.owner_cluster != "",
            FENCE.c.owner_cluster_epoch == 0,
            FENCE.c.fenced_ns < now - int(FRESH_SECONDS * SECOND),
        )
        late = now - self._claim_ns
        overdue = [row["execution"] for row in rows if row["fenced_ns"] < late]
        self._dispatcher.wake(row["execution"] for row in rows if row["fenced_ns"] >= late)
        if overdue:
            LOG.warning("%d executions were not claimed in time", len(overdue))
            await self._dispatch(overdue, cause="fallback", again=True)

    async def storyless(self) -> None:
        """Ownerless rows in the middle of a move, long after their fence."""
        rows = await self._rows(
            FENCE.c.terminal.is_(False),
            FENCE.c.owner_cluster == "",
            EXECUTION.c.phase.not_in([Phase.QUEUED.value, Phase.WAITING.value]),
            FENCE.c.fenced_ns < self._clock() - int(STORY_SECONDS * SECOND),
        )
        if not rows:
            return
        planned = await self._planned(rows)
        for row in rows:
            name, epoch = row["execution"], row["epoch"]
            if (mine := planned.get(name)) is None or mine["ended_ns"]:
                await self._movement.move(name, epoch, cause="failover")
            elif changed_ns(mine) < self._clock() - int(STORY_SECONDS * SECOND):
                await self._movement.resume(name, mine["number"], epoch=epoch, cause=mine["cause"])

    async def asked_by_nobody(self) -> None:
        """Their owner is asked to let go, and no planned move is open that would see to it."""
        late = self._clock() - int(LOST_STORY_SECONDS * SECOND)
        rows = await self._rows(
            FENCE.c.terminal.is_(False),
            FENCE.c.owner_cluster != "",
            FENCE.c.want == Want.QUIESCE.value,
            FENCE.c.fenced_ns < late,
        )
        if not rows:
            return
        planned = await self._planned(rows)
        for row in rows:
            mine = planned.get(row["execution"])
            if mine is not None and (mine["ended_ns"] == 0 or mine["ended_ns"] > late):
                continue
            async with self._database.write() as connection:
                again = await request(
                    connection, execution=row["execution"], cause="migration", drain="",
                    from_cluster=row["owner_cluster"], from_epoch=row["epoch"],
                )  # fmt: skip
            await self._movement.resume(
                row["execution"], again["number"], epoch=row["epoch"], cause=again["cause"]
            )

    async def _planned(self, rows: Sequence[Any]) -> dict[str, Any]:
        """The newest planned move of each run that had one."""
        names = [row["execution"] for row in rows]
        async with self._database.read() as connection:
            found = await connection.execute(
                select(MIGRATION)
                .where(MIGRATION.c.execution.in_(names))
                .order_by(MIGRATION.c.number)
            )
            return {row["execution"]: row for row in found.mappings()}

    async def keys_of_ended(self) -> None:
        rows = await self._rows(FENCE.c.terminal.is_(True), FENCE.c.key_epoch > 0)
        await self._delivery.unassign([row["execution"] for row in rows])

    async def suspected(self) -> None:
        """Clusters that the router judges lost, while rows still name them as owner. A router that
        began after the session's key had gone does not know which session that was: it was the
        newest that we gave out before we asked."""
        async with self._database.read() as connection:
            known = await connection.execute(select(CLUSTER.c.name, CLUSTER.c.cluster_epoch))
            newest = {row[0]: row[1] for row in known}
        snapshot = await self._router.snapshot()
        lost = {item.name: item for item in snapshot.clusters if item.suspected}
        if not lost:
            return
        async with self._database.read() as connection:
            found = await connection.execute(
                select(FENCE.c.owner_cluster)
                .where(FENCE.c.terminal.is_(False), FENCE.c.owner_cluster.in_(list(lost)))
                .distinct()
            )
            owners = [row[0] for row in found]
        for name in owners:
            item = lost[name]
            session = item.cluster_epoch or newest.get(name, 0)
            await self._movement.lost(name, session, since_ns=item.lost_since_ns)

    async def compare_keys(self) -> None:
        """Assignment keys against rows: etcd may have lost them, or kept one too many."""
        rows = await self._rows(FENCE.c.terminal.is_(False), FENCE.c.owner_cluster != "")
        owners: dict[str, dict[str, Any]] = {}
        for row in rows:
            owners.setdefault(row["owner_cluster"], {})[row["execution"]] = row
        for cluster, mine in owners.items():
            standing = {item.execution: item for item in await self._router.assigned(cluster)}
            await self._compare_epochs(standing, mine)
            missing = [
                Assignment(
                    name, row["epoch"], cluster, Want(row["want"]), row["gate"], row["traceparent"]
                )
                for name, row in mine.items()
                if behind(standing.get(name), row)
            ]
            if missing:
                LOG.info("%d assignment keys are written again", len(missing))
                results = await self._router.assign(missing)
                await compare_refusals(self._database, zip(missing, results, strict=True))

    async def _compare_epochs(
        self, standing: Mapping[str, Assignment], mine: Mapping[str, Any]
    ) -> None:
        seen = {
            name: standing[name].epoch
            for name, row in mine.items()
            if name in standing and standing[name].epoch > row["epoch"]
        }
        if seen:
            async with self._database.write() as connection:
                await fence_above(connection, seen, by="an assignment key")


def changed_ns(migration: Mapping[Any, Any]) -> int:
    """When a planned move last said something."""
    return max(migration[name] for name in ("requested_ns", "quiesced_ns", "released_ns"))


def behind(key: Assignment | None, row: Mapping[Any, Any]) -> bool:
    """Does the key say less than the row? Within an epoch the level only rises."""
    if key is None or key.epoch != row["epoch"]:
        return key is None or key.epoch < row["epoch"]
    return key.gate < row["gate"] or (key.want is Want.RUN and row["want"] != Want.RUN)
