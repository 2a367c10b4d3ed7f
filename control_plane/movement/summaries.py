"""Statements on the summary of a failover: opened, held, counted, closed; each safe to repeat.

Called by `activities.py` inside its transactions.
"""

import time
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from control_plane.database import table
from control_plane.movement.store import FailoverSummary

SUMMARY = table(FailoverSummary)


async def open_summary(connection: AsyncConnection, *, cluster: str, cluster_epoch: int) -> str:
    """Makes the row if need be; answers why the takeover is held, "" = it is not."""
    insert: Any = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    await connection.execute(
        insert(SUMMARY)
        .values(
            cluster=cluster, cluster_epoch=cluster_epoch, held="", taken=0, moved=0, waiting=0,
            started_ns=time.time_ns(), ended_ns=0,
        )
        .on_conflict_do_nothing()
    )  # fmt: skip
    found = await connection.execute(select(SUMMARY.c.held).where(*_key(cluster, cluster_epoch)))
    return found.scalar_one()


async def note(
    connection: AsyncConnection, *, cluster: str, cluster_epoch: int, **values: Any
) -> None:
    await connection.execute(update(SUMMARY).where(*_key(cluster, cluster_epoch)).values(**values))


async def count_taken(
    connection: AsyncConnection, *, cluster: str, cluster_epoch: int, taken: int
) -> None:
    await open_summary(connection, cluster=cluster, cluster_epoch=cluster_epoch)
    await note(
        connection, cluster=cluster, cluster_epoch=cluster_epoch, taken=SUMMARY.c.taken + taken
    )


async def taken_so_far(connection: AsyncConnection, *, cluster: str, cluster_epoch: int) -> int:
    found = await connection.execute(select(SUMMARY.c.taken).where(*_key(cluster, cluster_epoch)))
    return found.scalar_one_or_none() or 0


def _key(cluster: str, cluster_epoch: int) -> tuple[Any, Any]:
    return SUMMARY.c.cluster == cluster, SUMMARY.c.cluster_epoch == cluster_epoch
