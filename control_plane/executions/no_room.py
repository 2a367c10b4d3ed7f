"""Clusters that let go of a run because they had no room for it: not asked again for a while.

Marked by the ledger in the transaction of the RELEASED; read by `dispatch.py`, which goes back to
one of them only when the time has passed or nobody else takes the run.
"""

import json
import time
from collections.abc import Mapping

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection
from whimbrel.spec import canonical

from control_plane.database import table
from control_plane.executions.store import Execution

EXECUTION = table(Execution)
REASON = "unschedulable"
"""Why such a run waits."""

MOMENT_SECONDS = 5.0
"""A run does not go back sooner. Shorter: a cluster that lets go at once makes a storm of claims;
longer: a run stands still that could stand in the cluster's own queue."""


async def mark(connection: AsyncConnection, execution: str, cluster: str) -> None:
    found = await connection.execute(select(EXECUTION.c.no_room).where(EXECUTION.c.id == execution))
    marks = parse(found.scalar_one()) | {cluster: time.time_ns()}
    await connection.execute(
        update(EXECUTION).where(EXECUTION.c.id == execution).values(no_room=canonical(marks))
    )


def parse(document: str) -> dict[str, int]:
    marks: dict[str, int] = json.loads(document or "{}")
    return marks


def recent(marks: Mapping[str, int], *, now_ns: int, seconds: float) -> tuple[str, ...]:
    """Clusters that let go less than `seconds` ago."""
    return tuple(sorted(name for name, at in marks.items() if now_ns - at < seconds * 1e9))
