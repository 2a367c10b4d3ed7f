"""Which rows a takeover may touch, and how one is fenced to nobody.

Called by `activities.py` inside its transaction; every rule is the fence's: a session `s` loses
only what its cluster still owns with a claim no newer than `s`.
"""

import time
from collections.abc import Sequence

from sqlalchemy import ColumnElement, not_, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection
from whimbrel.spec import Mode, Phase, canonical, sha256

from control_plane.database import table
from control_plane.executions.dispatch import write_phases
from control_plane.executions.lifecycle import move
from control_plane.executions.loaded import IN_TURN
from control_plane.executions.store import Execution
from control_plane.executions.timeline import Entry, tell
from control_plane.ledger.fence import FENCE, FenceRow, FenceWish, fence, read
from control_plane.routing.port import Snapshot

EXECUTION = table(Execution)

Owned = tuple[FenceRow, str]
"""A row, and the phase its execution is in."""

STAYS = '%"failover":false%'
"""In a policy's canonical JSON: the author wants it to wait for its own cluster."""


def decision(story: str, execution: str) -> str:
    """The same step of the same story is the same decision, however often it is tried."""
    return sha256(canonical([story, "nobody", execution]))


async def owned_rows(
    connection: AsyncConnection, cluster: str, cluster_epoch: int, *, limit: int
) -> list[Owned]:
    """What the lost session still owns, in its turn. Claimed by a later session = not its own."""
    if limit <= 0:
        return []
    found = await connection.execute(
        select(FENCE, EXECUTION.c.phase)
        .join_from(FENCE, EXECUTION, FENCE.c.execution == EXECUTION.c.id)
        .where(
            FENCE.c.owner_cluster == cluster,
            FENCE.c.owner_cluster_epoch <= cluster_epoch,
            not_(FENCE.c.terminal),
            not_(stays()),
        )
        .order_by(*IN_TURN)
        .limit(limit)
    )
    return [(read(row), row["phase"]) for row in found.mappings()]


def stays() -> ColumnElement[bool]:
    return or_(EXECUTION.c.policy.like(STAYS), EXECUTION.c.mode == Mode.PINNED.value)


async def mark_staying(connection: AsyncConnection, cluster: str, cluster_epoch: int) -> None:
    """What is never replaced by itself says what it waits for, once; its cluster's next claim
    takes that back."""
    for kind, which in (
        ("pinned", EXECUTION.c.mode == Mode.PINNED.value),
        ("stays", EXECUTION.c.policy.like(STAYS)),
    ):
        said = f"{kind}: its cluster {cluster} is lost"
        found = await connection.execute(
            select(FENCE.c.execution, FENCE.c.epoch)
            .join_from(FENCE, EXECUTION, FENCE.c.execution == EXECUTION.c.id)
            .where(
                FENCE.c.owner_cluster == cluster,
                FENCE.c.owner_cluster_epoch <= cluster_epoch,
                not_(FENCE.c.terminal),
                EXECUTION.c.reason.not_like("%: its cluster % is lost"),
                which,
            )
        )
        marked = [Entry(row[0], row[1], kind, cluster, said) for row in found]
        await connection.execute(
            update(EXECUTION)
            .where(EXECUTION.c.id.in_([entry.execution for entry in marked]))
            .values(reason=said)
        )
        await tell(connection, marked)


async def orphans(connection: AsyncConnection, story: str, *, limit: int) -> list[FenceRow]:
    """Rows that this story fenced to nobody and had not placed when it was interrupted."""
    found = await connection.execute(
        select(FENCE)
        .join_from(FENCE, EXECUTION, FENCE.c.execution == EXECUTION.c.id)
        .where(
            FENCE.c.owner_cluster == "",
            not_(FENCE.c.terminal),
            EXECUTION.c.phase == Phase.MOVING.value,
        )
        .order_by(*IN_TURN)
    )
    rows = [read(row) for row in found.mappings()]
    return [row for row in rows if row.decision_digest == decision(story, row.execution)][:limit]


async def to_nobody(
    connection: AsyncConnection, owned: Sequence[Owned], *, story: str, gone: str = ""
) -> list[FenceRow]:
    """The rows at their next epoch, MOVING, nobody's; without those that changed meanwhile.
    `gone` is what became of their owner, "" = its session is over."""
    answers = await fence(
        connection,
        [
            FenceWish(
                execution=row.execution,
                epoch=row.epoch + 1,
                cluster="",
                seen_cluster=row.owner_cluster,
                seen_cluster_epoch=row.owner_cluster_epoch,
                decision_digest=decision(story, row.execution),
            )
            for row, _ in owned
        ],
    )
    fenced: list[FenceRow] = []
    lines: list[Entry] = []
    phases: list[dict[str, object]] = []
    for (before, phase), answer in zip(owned, answers, strict=True):
        if not answer.fenced or answer.row is None:
            continue
        fenced.append(answer.row)
        name, epoch, lost = before.execution, answer.row.epoch, before.owner_cluster
        said = gone or f"a session of {lost} is over"
        lines.append(Entry(name, before.epoch, "suspected", lost, said))
        lines.append(Entry(name, epoch, "fenced", "", f"epoch {epoch} belongs to nobody"))
        phases.append(
            {
                "x": name,
                "v_phase": move(phase, Phase.MOVING),
                "v_reason": f"leaving {lost}",
                "v_region": "",
                "v_cluster": "",
                "v_waiting_ns": 0,
            }
        )
    await write_phases(connection, phases)
    await tell(connection, lines)
    return fenced


async def current(connection: AsyncConnection, execution: str) -> FenceRow | None:
    found = await connection.execute(select(FENCE).where(FENCE.c.execution == execution))
    row = found.mappings().first()
    return read(row) if row else None


async def phase_of(connection: AsyncConnection, execution: str) -> str:
    found = await connection.execute(select(EXECUTION.c.phase).where(EXECUTION.c.id == execution))
    return found.scalar_one()


async def traceparents(connection: AsyncConnection, executions: Sequence[str]) -> dict[str, str]:
    found = await connection.execute(
        select(EXECUTION.c.id, EXECUTION.c.traceparent).where(EXECUTION.c.id.in_(list(executions)))
    )
    return {row[0]: row[1] for row in found}


def session_over(row: FenceRow, snapshot: Snapshot) -> bool:
    """May a story take this row from its owner? Only when the session that claimed it has ended:
    the snapshot may be older than the row, and the session that it calls lost than the claim. A
    router that began after the key had gone knows no session (0): whichever it was, it is over."""
    return any(
        cluster.name == row.owner_cluster
        and (
            cluster.cluster_epoch == 0 or row.owner_cluster_epoch <= cluster.cluster_epoch
            if cluster.suspected
            else 0 < row.owner_cluster_epoch < cluster.cluster_epoch
        )
        for cluster in snapshot.clusters
    )


def now_ns() -> int:
    return time.time_ns()
