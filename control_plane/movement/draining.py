"""The step of a drain: begin what may begin, look how far it is, from rows alone.

Called by Temporal through `registry.py`; asks `service.py` for each migration, so a drain's moves
are like everybody's. Interrupted anywhere, the next look goes on.
"""

import asyncio
import logging
import time
from collections.abc import Callable

from sqlalchemy import case, func, or_, select, union_all
from sqlalchemy.ext.asyncio import AsyncConnection
from whimbrel.errors import NotFound, Refused
from whimbrel.service.crash import crash_point

from control_plane import documents
from control_plane.clusters.service import CLUSTER
from control_plane.database import Database
from control_plane.executions.loaded import IN_TURN
from control_plane.ledger.fence import FENCE
from control_plane.movement import journal
from control_plane.movement.journal import MIGRATION
from control_plane.movement.planned import DRAIN_SECONDS, Drained, Empty
from control_plane.movement.planning import FOR_GOOD, why_stays
from control_plane.movement.rows import EXECUTION, now_ns
from control_plane.movement.service import Moves

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.5
"""Between two looks. Longer leaves places empty, shorter is load on SQL while it drains."""
TRIES, AGAIN_SECONDS = 10, 30.0
"""How often a run is asked that nobody took, and between two times. Fewer end a drain that only had
to wait for room, more keep it open where there will be none."""


class Draining:
    def __init__(
        self, database: Database, moves: Moves, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.database = database
        self.moves = moves
        self.clock = clock

    async def empty(self, drain: Empty) -> Drained:
        """Looks until it is over, or `DRAIN_SECONDS` have passed."""
        began = self.clock()
        while True:
            look = await self.look(drain)
            if look.phase != "RUNNING" or self.clock() - began >= DRAIN_SECONDS:
                return look
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self, drain: Empty) -> Drained:
        key = journal.drain_key(drain.cluster, drain.number)
        async with self.database.read() as connection:
            state = select(CLUSTER.c.scheduling).where(CLUSTER.c.name == drain.cluster)
            cordoned = (await connection.execute(state)).scalar_one_or_none() != "active"
            under_way = await journal.leaving(connection, drain.cluster)
            left = await self._left(connection, drain.cluster, key, limit=drain.at_once)
            later = await self._left(connection, drain.cluster, key, limit=1, later=True)
        if not cordoned:
            return await self._over(drain, "CANCELLED")
        if not left and not later and not under_way:
            return await self._over(drain, "DONE")
        free = drain.at_once - under_way
        for execution, policy in left[: max(0, free)]:
            await self._begin(execution, policy, cluster=drain.cluster, key=key)
            crash_point("drain.after_one")
        return await self._counts(drain)

    async def _left(
        self,
        connection: AsyncConnection,
        cluster: str,
        key: str,
        *,
        limit: int,
        later: bool = False,
    ) -> list[tuple[str, str]]:
        """Runs of this cluster that are to be asked to move, now or `later`: those that nobody took
        are asked again. What somebody else moves already is left to them."""
        tries, last = func.count(), func.max(MIGRATION.c.ended_ns)
        for_good = func.max(case((MIGRATION.c.reason.in_(FOR_GOOD), 1), else_=0)) == 1
        young = last > now_ns() - int(AGAIN_SECONDS * 1e9)
        asked = union_all(
            select(MIGRATION.c.execution).where(MIGRATION.c.ended_ns == 0),
            select(MIGRATION.c.execution)
            .where(MIGRATION.c.drain == key)
            .group_by(MIGRATION.c.execution)
            .having(or_(tries >= TRIES, for_good, *([] if later else [young]))),
        )
        found = await connection.execute(
            select(FENCE.c.execution, EXECUTION.c.policy)
            .join_from(FENCE, EXECUTION, FENCE.c.execution == EXECUTION.c.id)
            .where(
                FENCE.c.owner_cluster == cluster,
                FENCE.c.terminal.is_(False),
                FENCE.c.execution.not_in(asked),
            )
            .order_by(*IN_TURN)
            .limit(limit)
        )
        return [(row[0], row[1]) for row in found]

    async def _begin(self, execution: str, policy: str, *, cluster: str, key: str) -> None:
        if stays := why_stays(documents.policy(policy), cluster):
            async with self.database.write() as connection:
                await journal.request(
                    connection, execution=execution, cause="drain", drain=key,
                    from_cluster=cluster, from_epoch=0, refused=stays,
                )  # fmt: skip
            return
        try:
            await self.moves.migrate(execution, cause="drain", drain=key)
        except (NotFound, Refused) as error:
            log.info("%s is not drained: %s", execution, error.message)  # it has ended, or left

    async def _counts(self, drain: Empty) -> Drained:
        async with self.database.read() as connection:
            row = await journal.newest_drain(connection, drain.cluster)
            if row is None or row["number"] != drain.number:
                return Drained("CANCELLED")
            view = await journal.drain_view(connection, row, listed=0)
        return Drained(view.phase, view.moved, view.ended, view.staying)

    async def _over(self, drain: Empty, phase: str) -> Drained:
        async with self.database.write() as connection:
            total = await journal.asked(connection, drain.cluster, drain.number)
            values = {"phase": phase, "total": total, "ended_ns": now_ns()}
            await journal.note_drain(connection, drain.cluster, drain.number, **values)
        look = await self._counts(drain)
        log.info(
            "drain of %s is %s: %d moved, %d ended, %d stay",
            drain.cluster, look.phase, look.moved, look.ended, look.staying,
        )  # fmt: skip
        return look
