"""What is known of a run before anybody is asked where it goes; the fence compares with it after.

Read by `dispatch.py` and by the planning of moves, in one consistent look.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection
from whimbrel.spec import Mode

from control_plane import documents
from control_plane.database import table
from control_plane.executions import no_room
from control_plane.executions.store import Execution, Timeline
from control_plane.ledger.fence import FENCE, FenceRow, read
from control_plane.routing.port import Requirement

EXECUTION, TIMELINE = table(Execution), table(Timeline)

IN_TURN = (EXECUTION.c.priority.desc(), EXECUTION.c.created_ns, EXECUTION.c.id)
"""The order in which runs are placed, taken over and drained: by priority, then by age."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """What is known of a run before the router is asked; the fence compares with it afterwards."""

    row: FenceRow
    phase: str
    requirement: Requirement
    traceparent: str
    waiting_ns: int
    reason: str = ""
    no_room: Mapping[str, int] = field(default_factory=dict[str, int])
    home: str = ""
    """The cluster that a pinned run does not leave by itself."""


async def load(connection: AsyncConnection, names: Sequence[str]) -> dict[str, Loaded]:
    """In their turn."""
    found = await connection.execute(
        select(
            FENCE, EXECUTION.c.phase, EXECUTION.c.policy, EXECUTION.c.largest,
            EXECUTION.c.traceparent, EXECUTION.c.waiting_ns, EXECUTION.c.reason,
            EXECUTION.c.images, EXECUTION.c.secrets, EXECUTION.c.no_room, EXECUTION.c.mode,
        )
        .join_from(FENCE, EXECUTION, FENCE.c.execution == EXECUTION.c.id)
        .where(FENCE.c.execution.in_(list(names)))
        .order_by(*IN_TURN)
    )  # fmt: skip
    rows = found.mappings().all()
    pinned = [row["execution"] for row in rows if row["mode"] == Mode.PINNED]
    homes = await last_claims(connection, pinned) if pinned else {}
    return {
        row["execution"]: Loaded(
            row=read(row),
            phase=row["phase"],
            requirement=Requirement(
                execution=row["execution"],
                policy=documents.policy(row["policy"]),
                largest=documents.resources(row["largest"]),
                images=documents.names(row["images"]),
                secrets=documents.names(row["secrets"]),
                only=tuple(filter(None, [homes.get(row["execution"], "")])),
            ),
            traceparent=row["traceparent"],
            waiting_ns=row["waiting_ns"],
            reason=row["reason"],
            no_room=no_room.parse(row["no_room"]),
            home=homes.get(row["execution"], ""),
        )
        for row in rows
    }


async def last_claims(connection: AsyncConnection, names: Sequence[str]) -> dict[str, str]:
    """The cluster that last claimed each, without those that nobody has."""
    found = await connection.execute(
        select(TIMELINE.c.execution, TIMELINE.c.cluster)
        .where(TIMELINE.c.execution.in_(list(names)), TIMELINE.c.kind == "claimed")
        .order_by(TIMELINE.c.id)
    )
    return {row[0]: row[1] for row in found}


def exclusive(item: Loaded) -> bool:
    return item.requirement.policy.mode is Mode.EXCLUSIVE and unowned(item.row)


def unowned(row: FenceRow) -> bool:
    return not row.terminal and not row.owner_cluster


def assigned(row: FenceRow) -> bool:
    """Given to a cluster that has not claimed it."""
    return not row.terminal and row.owner_cluster != "" and row.owner_cluster_epoch == 0
