"""Outputs that nobody can read any more become history, so that their nodes run again.

Called by the ledger (UNREACHABLE) and by a takeover, inside the transaction that raised the
epoch; which nodes is decided before, by `movement/lineage.py`.
"""

from collections.abc import Mapping

from sqlalchemy import func, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from control_plane.database import table
from control_plane.ledger.store import NodeOutput, NodeState

OUTPUT = table(NodeOutput)
STATE = table(NodeState)


async def live_outputs(connection: AsyncConnection, execution: str) -> dict[str, list[str]]:
    """Live nodes -> the JSON texts of what they refer to: `artifacts` (a list) and `offloaded` (""
    = none)."""
    found = await connection.execute(
        select(OUTPUT.c.node, OUTPUT.c.artifacts, OUTPUT.c.offloaded).where(
            OUTPUT.c.execution == execution, OUTPUT.c.live
        )
    )
    return {node: [artifacts, offloaded] for node, artifacts, offloaded in found}


async def declare_unreachable(
    connection: AsyncConnection, execution: str, reasons: Mapping[str, str]
) -> None:
    """`reasons`: node -> why it is computed again. Closed over what was made from them by the
    caller."""
    if not reasons:
        return
    mine = (OUTPUT.c.execution == execution, OUTPUT.c.node.in_(list(reasons)), OUTPUT.c.live)
    tried = await connection.execute(
        select(OUTPUT.c.node, func.max(OUTPUT.c.attempt)).where(*mine).group_by(OUTPUT.c.node)
    )
    attempts: dict[str, int] = dict(tuple(row) for row in tried)
    await connection.execute(update(OUTPUT).where(*mine).values(live=False))
    rows = [
        {
            "execution": execution,
            "node": node,
            "phase": "QUEUED",
            "attempt": attempts.get(node, 0),
            "lineage": f"recomputed: {why}",
        }
        for node, why in reasons.items()
    ]
    insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    statement = insert(STATE).values(
        epoch=0, cluster="", started_ns=0, ended_ns=0, error="", user_failures=0, system_failures=0,
        failed_attempt=0, stdout="", stderr="",
    )  # fmt: skip
    known = statement.excluded
    await connection.execute(
        statement.on_conflict_do_update(
            index_elements=["execution", "node"],
            set_={
                "phase": known.phase,
                "attempt": func.max(STATE.c.attempt, known.attempt)
                if connection.dialect.name == "sqlite"
                else func.greatest(STATE.c.attempt, known.attempt),
                "lineage": known.lineage,
                "error": "",
                "started_ns": 0,
                "ended_ns": 0,
            },
        ),
        rows,
    )
