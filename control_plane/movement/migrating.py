"""The steps of a planned move up to RELEASED: may it, ask the source, see it let go.

Called by Temporal through `registry.py`; every step looks at the rows anew, is safe to repeat, and
says in the migration's row how far it is. What follows is in `settling.py`.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Protocol

from sqlalchemy import select, update
from whimbrel.errors import NotFound, Refused, Unreachable
from whimbrel.service.crash import crash_point
from whimbrel.spec import Assignment, Mode, Phase, Want

from control_plane.database import Database
from control_plane.executions.lifecycle import move
from control_plane.executions.timeline import Entry, tell
from control_plane.ledger.fence import FenceRow, locked, quiesce
from control_plane.movement import journal
from control_plane.movement.planned import WATCH_SECONDS, Migrate, Stage, Wait, migrate_id
from control_plane.movement.planning import Planning, why
from control_plane.movement.reach import Reach
from control_plane.movement.rows import (
    EXECUTION,
    current,
    decision,
    now_ns,
    phase_of,
    to_nobody,
    traceparents,
)
from control_plane.movement.standing import gone_on, note_released
from control_plane.registry.graphs import Graphs
from control_plane.routing.port import Router

log = logging.getLogger(__name__)


class Copy(Protocol):
    """`replication.copy_to`, when there is one: all that the run needs is brought to the region."""

    async def __call__(self, execution: str, /, *, cluster: str, region: str) -> object: ...


AGAIN_SECONDS = 3.0
"""Between two puts of the level: how long a key that etcd lost delays a move."""


class Leaving:
    def __init__(
        self, database: Database, router: Router, *, graphs: Graphs, copy: Copy | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self.database = database
        self.router = router
        self.planning = Planning(database, router, graphs)
        self.reach = Reach(database, router, graphs)
        self.copy = copy
        self.clock = clock

    async def prepare(self, story: Migrate) -> Stage:
        async with self.database.read() as connection:
            mine = await journal.migration(connection, story.execution, story.number)
            standing = await gone_on(connection, mine)
        if standing is not None:
            return standing
        if mine["phase"] != "PREPARE":
            return Stage("go")
        try:
            plan = await self.planning.plan(story.execution, to=mine["wanted"])
        except (NotFound, Refused) as error:
            return Stage("REFUSED", reason="not_movable", why=error.message)
        if not plan.decision.cluster:
            said = why(plan.decision, mine["wanted"])
            return Stage("REFUSED", reason=plan.decision.reason or "no_place", why=said)
        target = plan.decision.cluster
        async with self.database.write() as connection:
            await journal.note(connection, story.execution, story.number, to_cluster=target)
        try:
            await self.copied(story, target, plan.decision.region, seconds=story.copy_seconds)
        except Refused as error:
            return Stage("REFUSED", reason="residency", why=error.message)
        crash_point("migrate.after_prepare")
        return Stage("go", cluster=target)

    async def copied(self, story: Migrate, cluster: str, region: str, *, seconds: float) -> None:
        """What could not be copied is computed again, or read from afar: no reason to stay."""
        if self.copy is None:
            return
        try:
            async with asyncio.timeout(seconds):
                await self.copy(story.execution, cluster=cluster, region=region)
        except (TimeoutError, Unreachable) as error:
            log.warning("not all of %s is copied to %s: %s", story.execution, region, error)

    async def quiesce(self, story: Migrate) -> Stage:
        name = story.execution
        async with self.database.write() as connection:
            mine = await journal.migration(connection, name, story.number)
            if standing := await gone_on(connection, mine):
                return standing
            source = mine["from_cluster"]
            row = await quiesce(connection, name, epoch=mine["from_epoch"], cluster=source)
            if row is None:  # it has let go by itself; what is looked for next is that
                return Stage("go")
            if mine["phase"] == "PREPARE":
                phase, to = await phase_of(connection, name), mine["to_cluster"]
                await connection.execute(
                    update(EXECUTION)
                    .where(EXECUTION.c.id == name)
                    .values(phase=move(phase, Phase.MOVING), reason=f"migrating to {to}")
                )
                text = f"to {to}: {source} is asked to save and to let go"
                await tell(connection, [Entry(name, row.epoch, "migrating", source, text)])
                await journal.note(
                    connection, name, story.number, phase="QUIESCE", quiesced_ns=now_ns()
                )
        crash_point("migrate.after_quiesce")
        await self._ask(row)
        async with self.database.write() as connection:
            await journal.note(connection, name, story.number, phase="CHECKPOINT")
        return Stage("go")

    async def _ask(self, row: FenceRow) -> None:
        async with self.database.read() as connection:
            traces = await traceparents(connection, [row.execution])
        await self.router.assign(
            [
                Assignment(
                    row.execution, row.epoch, row.owner_cluster, want=Want.QUIESCE, gate=row.gate,
                    traceparent=traces.get(row.execution, ""),
                )
            ]
        )  # fmt: skip

    async def _patient(self, row: FenceRow) -> bool:
        """Only its owner may let go of what does harm twice; but who never claimed it runs
        nothing."""
        async with self.database.read() as connection:
            found = await connection.execute(
                select(EXECUTION.c.mode).where(EXECUTION.c.id == row.execution)
            )
        return found.scalar_one() != Mode.IDEMPOTENT and row.owner_cluster_epoch > 0

    async def released(self, wait: Wait) -> Stage:
        """Until the row says that its owner let go; puts the level again, it may have been lost."""
        story, began = wait.story, self.clock()
        asked = began
        while True:
            async with self.database.read() as connection:
                mine = await journal.migration(connection, story.execution, story.number)
                standing = await gone_on(connection, mine)
                row = await current(connection, story.execution)
            if standing is not None or row is None:
                return standing or Stage("ENDED")
            if not row.owner_cluster:
                await note_released(self.database, story, row)
                return Stage("released", epoch=row.epoch)
            now = self.clock()
            if now - began >= wait.seconds:
                return Stage("silent", patient=await self._patient(row))
            if now - asked >= AGAIN_SECONDS:
                await self._ask(row)
                asked = now
            await asyncio.sleep(WATCH_SECONDS)

    async def take(self, story: Migrate) -> Stage:
        """Idempotent work whose owner says nothing is taken from it, as a lost cluster's is."""
        name, id = story.execution, migrate_id(story.execution, story.number)
        async with self.database.write() as connection:
            mine = await journal.migration(connection, name, story.number)
            row = (await locked(connection, [name]))[name]
            if row.terminal:
                return Stage("ENDED")
            taken = row.epoch == mine["from_epoch"] + 1 and row.decision_digest == decision(
                id, name
            )
            if not taken and not row.released:
                if standing := await gone_on(connection, mine):
                    return standing
                said = f"{row.owner_cluster} did not let go in {story.quiesce_seconds:g} s"
                owned = [(row, await phase_of(connection, name))]
                [row] = await to_nobody(connection, owned, story=id, gone=said)
        crash_point("migrate.after_take")
        snapshot = await self.router.snapshot()
        if not row.released:
            await self.reach.declare([row], snapshot=snapshot, lost=mine["from_cluster"])
        await note_released(self.database, story, row)
        return Stage("released", epoch=row.epoch)
