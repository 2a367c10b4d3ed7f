"""Wake-ups: rows that say something happened, delivered and then deleted.

Hinted by the ledger and cancel right after their transaction, and looked for every second, so that
what a crash left is delivered too. Every delivery may come twice.
"""

import asyncio
import logging
from collections.abc import Sequence

from sqlalchemy import bindparam, delete, select, update
from whimbrel.errors import Unreachable
from whimbrel.spec import Assignment, Want

from control_plane.database import Database, table
from control_plane.executions.changes import Changes
from control_plane.executions.dispatcher import Dispatcher
from control_plane.ledger.fence import FENCE
from control_plane.ledger.store import Wakeup
from control_plane.routing.port import Router

LOG = logging.getLogger(__name__)
WAKEUP = table(Wakeup)
BATCH = 500
LOOK_SECONDS = 1.0
"""Between two looks without a hint. Longer: a crash's leftovers wait so long; shorter: idle
reads."""


class Delivery:
    def __init__(
        self, database: Database, router: Router, *, dispatcher: Dispatcher, changes: Changes
    ) -> None:
        self._database = database
        self._router = router
        self._dispatcher = dispatcher
        self._changes = changes
        self._news = asyncio.Event()

    def hint(self) -> None:
        self._news.set()

    async def run(self) -> None:
        while True:
            try:
                while await self.deliver() == BATCH:
                    pass
            except Unreachable as error:
                LOG.warning("wake-ups wait for the router: %s", error.message)
                await asyncio.sleep(LOOK_SECONDS)
            except Exception:
                LOG.exception("wake-ups were not delivered")
                await asyncio.sleep(LOOK_SECONDS)
            try:
                await asyncio.wait_for(self._news.wait(), LOOK_SECONDS)
            except TimeoutError:
                continue
            self._news.clear()

    async def deliver(self) -> int:
        """One batch of rows; answers how many there were."""
        async with self._database.read() as connection:
            found = await connection.execute(select(WAKEUP).order_by(WAKEUP.c.id).limit(BATCH))
            rows = found.mappings().all()
        if not rows:
            return 0
        executions = [row["execution"] for row in rows]
        self._changes.notify(executions)
        self._dispatcher.wake(row["execution"] for row in rows if row["kind"] == "ownerless")
        await self.unassign([row["execution"] for row in rows if row["kind"] == "finished"])
        async with self._database.write() as connection:
            await connection.execute(
                delete(WAKEUP).where(WAKEUP.c.id.in_([row["id"] for row in rows]))
            )
        return len(rows)

    async def unassign(self, executions: Sequence[str]) -> None:
        """Removes the keys of ended runs; the rows remember until it is done."""
        if not executions:
            return
        async with self._database.read() as connection:
            found = await connection.execute(
                select(FENCE.c.execution, FENCE.c.epoch, FENCE.c.owner_cluster).where(
                    FENCE.c.execution.in_(executions),
                    FENCE.c.terminal.is_(True),
                    FENCE.c.key_epoch > 0,
                )
            )
            rows = found.mappings().all()
        if not rows:
            return
        await self._router.unassign(
            [
                Assignment(row["execution"], row["epoch"], row["owner_cluster"], Want.CANCEL)
                for row in rows
            ]
        )
        async with self._database.write() as connection:
            await connection.execute(
                update(FENCE)
                .where(FENCE.c.execution == bindparam("x"), FENCE.c.terminal.is_(True))
                .values(key_epoch=0),
                [{"x": row["execution"]} for row in rows],
            )
