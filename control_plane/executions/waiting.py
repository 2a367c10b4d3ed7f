"""Runs that wait for a place, looked at every second, by priority and age, however many they are.

Run beside the sweeper's rounds; hands to dispatch. Runs that ask for the same get the same answer:
when one of them finds no place, those behind it are not asked about in this look.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import select, update
from whimbrel.errors import Unreachable
from whimbrel.spec import Mode, Phase

from control_plane.database import Database, table
from control_plane.executions.changes import Changes
from control_plane.executions.dispatch import BATCH, Dispatch
from control_plane.executions.exclusive import REASON as OLD_COPY
from control_plane.executions.loaded import IN_TURN
from control_plane.executions.store import Execution
from control_plane.ledger.fence import FENCE

LOG = logging.getLogger(__name__)
EXECUTION = table(Execution)

EVERY_SECONDS = 1.0
"""Between two looks. Longer: a run waits longer although there is room; shorter: idle reads."""

FRESH_SECONDS = 1.0
"""Runs younger than this are still in the hands of their launch."""

AT_MOST = 100_000
"""Rows of one look. More than fit into memory would end the process."""

Row = Mapping[Any, Any]
Shape = tuple[str, ...]
SHAPE = ("policy", "largest", "images", "secrets", "no_room", "mode")
"""Columns that say where a run may go."""


class Waiting:
    def __init__(
        self, database: Database, dispatch: Dispatch, changes: Changes, *,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:  # fmt: skip
        self._database = database
        self._dispatch = dispatch
        self._changes = changes
        self._clock = clock
        self.batch = BATCH

    async def run(self) -> None:
        while True:
            try:
                await self.look()
            except Unreachable as error:
                LOG.debug("who waits waits for the router: %s", error.message)
            except Exception:
                LOG.exception("who waits was not looked at")
            await asyncio.sleep(self.pause())

    def pause(self) -> float:
        """Seconds till the next look; an exclusive run's wait may end before a second is over."""
        return min(EVERY_SECONDS, self._dispatch.old_copies.due_in())

    async def look(self) -> None:
        """QUEUED and WAITING rows: what launch or the last look did not place."""
        nowhere: dict[Shape, str] = {}
        behind: list[Row] = []
        batch: list[Row] = []
        for row in await self._rows():
            if shape(row) in nowhere:
                behind.append(row)
                continue
            batch.append(row)
            if len(batch) == self.batch:
                nowhere |= await self._place(batch)
                batch = []
        await self._place(batch)
        await self._wait_too([(row, nowhere[shape(row)]) for row in behind])

    async def _rows(self) -> Sequence[Row]:
        async with self._database.read() as connection:
            found = await connection.execute(
                select(
                    FENCE.c.execution, FENCE.c.epoch, FENCE.c.released, EXECUTION.c.phase,
                    EXECUTION.c.reason, *(EXECUTION.c[name] for name in SHAPE),
                )
                .join_from(EXECUTION, FENCE, FENCE.c.execution == EXECUTION.c.id)
                .where(
                    EXECUTION.c.phase.in_([Phase.QUEUED.value, Phase.WAITING.value]),
                    FENCE.c.terminal.is_(False),
                    FENCE.c.owner_cluster == "",
                    EXECUTION.c.created_ns < self._clock() - int(FRESH_SECONDS * 1e9),
                )
                .order_by(*IN_TURN)
                .limit(AT_MOST)
            )  # fmt: skip
            return found.mappings().all()

    async def _place(self, batch: Sequence[Row]) -> dict[Shape, str]:
        """The shapes that found no place, and why."""
        if not batch:
            return {}
        done = await self._dispatch([row["execution"] for row in batch])
        reasons = {item.execution: item.reason for item in done if not item.cluster}
        return {
            shape(row): reasons[row["execution"]] for row in batch if row["execution"] in reasons
        }

    async def _wait_too(self, behind: Sequence[tuple[Row, str]]) -> None:
        """What they wait for may have changed since they were asked about themselves."""
        changed: dict[str, list[str]] = {}
        for row, reason in behind:
            if row["reason"] != reason:
                changed.setdefault(reason, []).append(row["execution"])
        for reason, names in changed.items():
            for start in range(0, len(names), BATCH):
                batch = names[start : start + BATCH]
                async with self._database.write() as connection:
                    await connection.execute(
                        update(EXECUTION)
                        .where(EXECUTION.c.id.in_(batch), EXECUTION.c.phase == Phase.WAITING.value)
                        .values(reason=reason)
                    )
                self._changes.notify(batch)


def shape(row: Row) -> Shape:
    """What the answer depends on."""
    return (row["execution"] if alone(row) else "", *(row[name] for name in SHAPE))


def alone(row: Row) -> bool:
    """Its answer is nobody else's: it was never asked about, it waits for an old copy of its own,
    or for a cluster of its own."""
    return (
        row["phase"] == Phase.QUEUED
        or row["mode"] == Mode.PINNED
        or (row["mode"] == Mode.EXCLUSIVE and (row["epoch"] > 0 or row["reason"] == OLD_COPY))
    )
