"""Clusters that let go of a run because they had no room for it, could not read what it was
launched with, or were stopping: not asked again for a while.

Marked by the ledger in the transaction of the RELEASED or UNREACHABLE; read by `dispatch.py`, which
goes back to one of them only when the time has passed or nobody else takes the run.
"""

import json
import time
from collections.abc import Mapping

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection
from whimbrel.spec import Failure, Owner, canonical

from control_plane.database import table
from control_plane.executions.store import Execution

EXECUTION = table(Execution)
REASON = "unschedulable"
UNREADABLE = "unreadable_input"
STOPPING = "drain"
"""Why such a run waits."""
REASONS = (REASON, UNREADABLE, STOPPING)

MOMENT_SECONDS = 5.0
"""A run does not go back sooner. Shorter: a cluster that lets go at once makes a storm of claims;
longer: a run stands still that could stand in the cluster's own queue."""

LONGEST_SECONDS = 300.0
READS = 8
"""How often one cluster may say that it can't read an input which no node can make again, nothing
having come of the run in between. Fewer: a store's bad ten minutes end runs; more: a run whose
file was deleted waits for ever."""


async def mark(
    connection: AsyncConnection, execution: str, cluster: str, *, pause_seconds: float = 0.0
) -> None:
    """`pause_seconds` is how much longer than the others this one is kept away."""
    found = await connection.execute(select(EXECUTION.c.no_room).where(EXECUTION.c.id == execution))
    marks = parse(found.scalar_one()) | {cluster: time.time_ns() + int(pause_seconds * 1e9)}
    await connection.execute(
        update(EXECUTION).where(EXECUTION.c.id == execution).values(no_room=canonical(marks))
    )


def parse(document: str) -> dict[str, int]:
    marks: dict[str, int] = json.loads(document or "{}")
    return marks


def recent(marks: Mapping[str, int], *, now_ns: int, seconds: float) -> tuple[str, ...]:
    """Clusters that let go less than `seconds` ago."""
    return tuple(sorted(name for name, at in marks.items() if now_ns - at < seconds * 1e9))


def pause(before: int) -> float:
    """Seconds beyond the moment that it stays away after `before` rounds in vain."""
    return min(MOMENT_SECONDS * 2**before, LONGEST_SECONDS) - MOMENT_SECONDS


def reason(of: str) -> str:
    """Why a run waits that must not go back yet, from why it waited before."""
    return of if of in REASONS else REASON


def too_long(limit_seconds: float, why: str) -> Failure:
    said = f"waited longer than {limit_seconds:g} s for a place: {why}"
    return Failure(Owner.CONFIG, "max_wait", said)
