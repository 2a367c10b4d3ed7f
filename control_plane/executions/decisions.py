"""Placement decisions as they are kept: whole, one an epoch, also those that found no cluster.

Called by `dispatch.py` inside its transaction. A decision that found nothing stands at the epoch
the next fence would have, and is overwritten by the next decision.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from control_plane import documents
from control_plane.database import table
from control_plane.executions.store import Placement
from control_plane.routing.port import Decision

PLACEMENT = table(Placement)


async def keep_decisions(
    connection: AsyncConnection, decided: Sequence[tuple[Decision, int, str]]
) -> None:
    """`decided` are (decision, epoch, cause)."""
    if not decided:
        return
    insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    statement = insert(PLACEMENT)
    fresh = statement.excluded
    await connection.execute(
        statement.on_conflict_do_update(
            index_elements=["execution", "epoch"],
            set_={
                name: fresh[name]
                for name in ("cluster", "region", "cause", "reason", "verdicts", "decided_ns")
            },
        ),
        [
            {
                "execution": decision.execution,
                "epoch": epoch,
                "cluster": decision.cluster,
                "region": decision.region,
                "cause": cause,
                "reason": decision.reason,
                "verdicts": documents.texts(decision.verdicts),
                "decided_ns": decision.decided_ns,
            }
            for decision, epoch, cause in decided
        ],
    )


@dataclass(frozen=True, slots=True)
class Pending:
    """The last decision of an execution, when it found no cluster."""

    cause: str
    reason: str
    verdicts: str


async def pending(connection: AsyncConnection, names: Iterable[str]) -> dict[str, Pending]:
    found = await connection.execute(
        select(PLACEMENT).where(PLACEMENT.c.execution.in_(list(names))).order_by(PLACEMENT.c.epoch)
    )
    newest = {row["execution"]: row for row in found.mappings()}
    return {
        name: Pending(row["cause"], row["reason"], row["verdicts"])
        for name, row in newest.items()
        if not row["cluster"]
    }
