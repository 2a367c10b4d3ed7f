"""Statements on the rows of planned moves and drains: asked for, noted, ended, read as views.

Called by `service.py` (the doors' side) and by the steps, inside their transactions. An ended row
is never changed again, so a late or repeated step does no harm.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import func, insert, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from control_plane.database import table
from control_plane.ledger.fence import locked
from control_plane.movement.store import Drain, Migration
from control_plane.movement.views import DrainView, MigrationView, NodePlan
from control_plane.routing.port import Verdict

MIGRATION, DRAIN = table(Migration), table(Drain)

AT_MOST = 1000
"""Migrations that a drain's view shows, the newest."""

Row = Mapping[Any, Any]

STAYS = ("REFUSED", "FAILED")


async def request(
    connection: AsyncConnection, *, execution: str, cause: str, drain: str, from_cluster: str,
    from_epoch: int, wanted: str = "", to_cluster: str = "", refused: tuple[str, str] = ("", ""),
) -> Row:  # fmt: skip
    """The open migration of this run, or a new one; `refused` (reason, why) is one that ends at
    once. The fence's row lock decides between two who ask at the same time."""
    await locked(connection, [execution])
    newest = await newest_of(connection, execution)
    if newest is not None and newest["ended_ns"] == 0:
        return newest
    now = time.time_ns()
    reason, why = refused
    row = {
        "execution": execution, "number": (newest["number"] if newest else 0) + 1,
        "cause": cause, "drain": drain, "from_cluster": from_cluster, "from_epoch": from_epoch,
        "wanted": wanted, "to_cluster": to_cluster, "phase": "REFUSED" if reason else "PREPARE",
        "reason": reason, "why": why, "requested_ns": now, "quiesced_ns": 0, "released_ns": 0,
        "claimed_ns": 0, "resumed_ns": 0, "ended_ns": now if reason else 0,
    }  # fmt: skip
    await connection.execute(insert(MIGRATION).values(row))
    return row


async def newest_of(connection: AsyncConnection, execution: str) -> Row | None:
    found = await connection.execute(
        select(MIGRATION)
        .where(MIGRATION.c.execution == execution)
        .order_by(MIGRATION.c.number.desc())
        .limit(1)
    )
    return found.mappings().first()


async def migration(connection: AsyncConnection, execution: str, number: int) -> Row:
    found = await connection.execute(
        select(MIGRATION).where(MIGRATION.c.execution == execution, MIGRATION.c.number == number)
    )
    return found.mappings().one()


async def open_migrations(connection: AsyncConnection, *, limit: int) -> Sequence[Row]:
    found = await connection.execute(
        select(MIGRATION)
        .where(MIGRATION.c.ended_ns == 0)
        .order_by(MIGRATION.c.requested_ns)
        .limit(limit)
    )
    return found.mappings().all()


async def leaving(connection: AsyncConnection, cluster: str) -> int:
    """How many open migrations this cluster is the source of."""
    found = await connection.execute(
        select(func.count()).where(MIGRATION.c.ended_ns == 0, MIGRATION.c.from_cluster == cluster)
    )
    return found.scalar_one()


async def note(connection: AsyncConnection, execution: str, number: int, **values: Any) -> bool:
    """False: it has ended before."""
    changed = await connection.execute(
        update(MIGRATION)
        .where(
            MIGRATION.c.execution == execution,
            MIGRATION.c.number == number,
            MIGRATION.c.ended_ns == 0,
        )
        .values(**values)
        .returning(MIGRATION.c.number)
    )
    return changed.first() is not None


def migration_view(
    row: Row, *, nodes: tuple[NodePlan, ...] = (), verdicts: tuple[Verdict, ...] = ()
) -> MigrationView:
    quiet, again = row["quiesced_ns"], row["resumed_ns"]
    return MigrationView(
        execution=row["execution"], number=row["number"], cause=row["cause"],
        from_cluster=row["from_cluster"], to_cluster=row["to_cluster"] or row["wanted"],
        phase=row["phase"], reason=row["reason"], why=row["why"], nodes=nodes, verdicts=verdicts,
        requested_ns=row["requested_ns"], ended_ns=row["ended_ns"],
        pause_ns=max(0, again - quiet) if quiet and again else 0,
    )  # fmt: skip


async def begin_drain(connection: AsyncConnection, cluster: str) -> Row:
    """The drain under way, or the next one. Called with the cluster's row locked."""
    newest = await newest_drain(connection, cluster)
    if newest is not None and newest["ended_ns"] == 0:
        return newest
    row = {
        "cluster": cluster, "number": (newest["number"] if newest else 0) + 1, "phase": "RUNNING",
        "total": 0, "started_ns": time.time_ns(), "ended_ns": 0,
    }  # fmt: skip
    await connection.execute(insert(DRAIN).values(row))
    return row


async def newest_drain(connection: AsyncConnection, cluster: str) -> Row | None:
    found = await connection.execute(
        select(DRAIN).where(DRAIN.c.cluster == cluster).order_by(DRAIN.c.number.desc()).limit(1)
    )
    return found.mappings().first()


async def open_drains(connection: AsyncConnection) -> Sequence[Row]:
    found = await connection.execute(select(DRAIN).where(DRAIN.c.ended_ns == 0))
    return found.mappings().all()


async def note_drain(connection: AsyncConnection, cluster: str, number: int, **values: Any) -> None:
    await connection.execute(
        update(DRAIN)
        .where(DRAIN.c.cluster == cluster, DRAIN.c.number == number, DRAIN.c.ended_ns == 0)
        .values(**values)
    )


async def asked(connection: AsyncConnection, cluster: str, number: int) -> int:
    """How many runs a drain has asked to move, also in vain."""
    found = await connection.execute(
        select(func.count(MIGRATION.c.execution.distinct())).where(
            MIGRATION.c.drain == drain_key(cluster, number)
        )
    )
    return found.scalar_one()


def drain_key(cluster: str, number: int) -> str:
    return f"{cluster}/{number}"


async def drain_view(connection: AsyncConnection, row: Row, *, listed: int = AT_MOST) -> DrainView:
    """`listed`: how many of its runs are shown, those first that were asked last; of each its last
    migration counts."""
    key = drain_key(row["cluster"], row["number"])
    last = (
        select(MIGRATION.c.execution, func.max(MIGRATION.c.number).label("number"))
        .where(MIGRATION.c.drain == key)
        .group_by(MIGRATION.c.execution)
    )
    mine = tuple_(MIGRATION.c.execution, MIGRATION.c.number).in_(last)
    counted = await connection.execute(
        select(MIGRATION.c.phase, func.count())
        .where(mine, MIGRATION.c.ended_ns > 0)
        .group_by(MIGRATION.c.phase)
    )
    phases: dict[str, int] = {row[0]: row[1] for row in counted}
    found = await connection.execute(
        select(MIGRATION).where(mine).order_by(MIGRATION.c.requested_ns.desc()).limit(listed)
    )
    return DrainView(
        cluster=row["cluster"], number=row["number"], phase=row["phase"],
        total=await asked(connection, row["cluster"], row["number"]),
        moved=sum(phases.get(name, 0) for name in ("CLAIMED", "RESUMED", "TAKEN_OVER")),
        ended=phases.get("ENDED", 0), staying=sum(phases.get(name, 0) for name in STAYS),
        started_ns=row["started_ns"], ended_ns=row["ended_ns"],
        migrations=tuple(migration_view(one) for one in found.mappings()),
    )  # fmt: skip
