"""Who may write: compare-and-set on `execution_fence`, the one row a run that everything else is
checked against.

Called by dispatch and movement (fence), by the ledger (claim, release, end), always inside the
caller's one transaction; hands back values. Each rule of `judge` and `admits` has a
counterexample without it.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import bindparam, select, update
from sqlalchemy.ext.asyncio import AsyncConnection
from whimbrel.spec import Want

from control_plane.database import exclusive, shared, table
from control_plane.ledger.store import ExecutionFence

FENCE = table(ExecutionFence)
FIELDS = (
    "epoch", "owner_cluster", "owner_cluster_epoch", "decision_digest", "released", "terminal",
    "fenced_ns", "key_epoch", "want", "gate",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class FenceRow:
    """The row as read, locked. `owner_cluster` "" = nobody; `owner_cluster_epoch` 0 = unclaimed;
    `want` and `gate` are the level of its assignment key at this epoch."""

    execution: str
    epoch: int
    owner_cluster: str
    owner_cluster_epoch: int
    decision_digest: str
    released: int
    terminal: bool
    fenced_ns: int = 0
    key_epoch: int = 0
    want: Want = Want.RUN
    gate: int = 0


@dataclass(frozen=True, slots=True)
class FenceWish:
    """Raise to `epoch` and give to `cluster` ("" = nobody), provided the row is what the caller
    saw."""

    execution: str
    epoch: int
    cluster: str
    seen_cluster: str
    seen_cluster_epoch: int
    decision_digest: str


@dataclass(frozen=True, slots=True)
class FenceAnswer:
    """`row` is the row afterwards; None = no such execution. Not fenced: decide anew from `row`."""

    execution: str
    fenced: bool
    row: FenceRow | None


@dataclass(frozen=True, slots=True)
class ClaimAnswer:
    execution: str
    epoch: int
    claimed: bool
    row: FenceRow | None


def judge(row: FenceRow, wish: FenceWish) -> FenceRow | None:
    """The row after the fence, the same row if this decision was taken before, None if refused."""
    if row.terminal:
        return None
    if row.epoch == wish.epoch and row.decision_digest == wish.decision_digest:
        return row
    if row.epoch != wish.epoch - 1:
        return None
    if (row.owner_cluster, row.owner_cluster_epoch) != (wish.seen_cluster, wish.seen_cluster_epoch):
        return None
    return replace(
        row,
        epoch=wish.epoch,
        owner_cluster=wish.cluster,
        owner_cluster_epoch=0,
        decision_digest=wish.decision_digest,
        released=0,
        key_epoch=wish.epoch if wish.cluster else row.key_epoch,
        want=Want.RUN,
        gate=0,
    )


def admits(row: FenceRow, *, epoch: int, cluster: str, cluster_epoch: int) -> bool:
    """May this session claim this epoch? `owner_cluster_epoch` is only ever raised."""
    return (
        not row.terminal
        and not row.released
        and row.epoch == epoch
        and row.owner_cluster == cluster
        and cluster != ""
        and row.owner_cluster_epoch <= cluster_epoch
    )


def owns(row: FenceRow, *, epoch: int, cluster: str, cluster_epoch: int) -> bool:
    """May this session write at this epoch? All four must be current."""
    return (
        not row.terminal
        and not row.released
        and row.epoch == epoch
        and row.owner_cluster == cluster
        and row.owner_cluster_epoch == cluster_epoch
        and cluster != ""
        and cluster_epoch > 0
    )


async def locked(
    connection: AsyncConnection, executions: Sequence[str], *, for_update: bool = True
) -> dict[str, FenceRow]:
    """The rows, locked till the transaction ends, in one order so that no two callers deadlock."""
    names = sorted(set(executions))
    if not names:
        return {}
    query = select(FENCE).where(FENCE.c.execution.in_(names)).order_by(FENCE.c.execution)
    found = await connection.execute(exclusive(query) if for_update else shared(query))
    return {row["execution"]: read(row) for row in found.mappings()}


def read(row: Mapping[Any, Any]) -> FenceRow:
    return FenceRow(
        execution=row["execution"],
        epoch=row["epoch"],
        owner_cluster=row["owner_cluster"],
        owner_cluster_epoch=row["owner_cluster_epoch"],
        decision_digest=row["decision_digest"],
        released=row["released"],
        terminal=bool(row["terminal"]),
        fenced_ns=row["fenced_ns"],
        key_epoch=row["key_epoch"],
        want=Want(row["want"]),
        gate=row["gate"],
    )


async def store(connection: AsyncConnection, rows: Sequence[FenceRow]) -> None:
    """Writes rows that the caller has locked and decided."""
    if not rows:
        return
    statement = (
        update(FENCE)
        .where(FENCE.c.execution == bindparam("x"))
        .values({name: bindparam(f"v_{name}") for name in FIELDS})
    )
    await connection.execute(
        statement,
        [
            {"x": row.execution} | {f"v_{name}": getattr(row, name) for name in FIELDS}
            for row in rows
        ],
    )


async def fence(connection: AsyncConnection, wishes: Sequence[FenceWish]) -> list[FenceAnswer]:
    """Compare-and-set of a batch. The same (epoch, decision) again succeeds and changes nothing."""
    rows = await locked(connection, [wish.execution for wish in wishes])
    now = time.time_ns()
    answers: list[FenceAnswer] = []
    changed: dict[str, FenceRow] = {}
    for wish in wishes:
        row = rows.get(wish.execution)
        after = judge(row, wish) if row else None
        if after is None:
            answers.append(FenceAnswer(wish.execution, fenced=False, row=row))
            continue
        if after is not row:
            after = replace(after, fenced_ns=now)
            rows[wish.execution] = changed[wish.execution] = after
        answers.append(FenceAnswer(wish.execution, fenced=True, row=after))
    await store(connection, list(changed.values()))
    return answers


async def claim(
    connection: AsyncConnection,
    wishes: Sequence[tuple[str, int]],
    *,
    cluster: str,
    cluster_epoch: int,
) -> list[ClaimAnswer]:
    """`wishes` are (execution, epoch). Raises `owner_cluster_epoch` of what this session may
    own."""
    rows = await locked(connection, [execution for execution, _ in wishes])
    answers: list[ClaimAnswer] = []
    changed: dict[str, FenceRow] = {}
    for execution, epoch in wishes:
        row = rows.get(execution)
        granted = row is not None and admits(
            row, epoch=epoch, cluster=cluster, cluster_epoch=cluster_epoch
        )
        if row and granted and row.owner_cluster_epoch != cluster_epoch:
            row = replace(row, owner_cluster_epoch=cluster_epoch)
            rows[execution] = changed[execution] = row
        answers.append(ClaimAnswer(execution, epoch, claimed=granted, row=row))
    await store(connection, list(changed.values()))
    return answers


async def quiesce(
    connection: AsyncConnection, execution: str, *, epoch: int, cluster: str
) -> FenceRow | None:
    """From now on its owner is asked to save and to let go, by every assignment and claim of this
    epoch. None: it is not what the caller saw."""
    row = (await locked(connection, [execution])).get(execution)
    if row is None or row.terminal or (row.epoch, row.owner_cluster) != (epoch, cluster):
        return None
    if row.want is not Want.QUIESCE:
        row = replace(row, want=Want.QUIESCE)
        await store(connection, [row])
    return row


def ended(row: FenceRow) -> FenceRow:
    """After success, failure or cancel: an unreachable owner that returns finds itself fenced."""
    return replace(row, epoch=row.epoch + 1, terminal=True, fenced_ns=time.time_ns())


def relinquished(row: FenceRow) -> FenceRow:
    """After RELEASED: no later claim of this epoch succeeds. What it was asked for stays, or a late
    copy of the assignment would say RUN."""
    return replace(row, owner_cluster="", owner_cluster_epoch=0, released=1)


def abandoned(row: FenceRow, *, decision_digest: str) -> FenceRow:
    """After UNREACHABLE: nobody's, at the next epoch; its owner has stopped it, as if released."""
    return replace(
        row,
        epoch=row.epoch + 1,
        owner_cluster="",
        owner_cluster_epoch=0,
        released=1,
        decision_digest=decision_digest,
        fenced_ns=time.time_ns(),
        want=Want.RUN,
        gate=0,
    )


async def end(connection: AsyncConnection, executions: Sequence[str]) -> dict[str, FenceRow]:
    """Terminal raise of those not terminal yet; answers the rows *before*: which did it end?"""
    rows = await locked(connection, executions)
    await store(connection, [ended(row) for row in rows.values() if not row.terminal])
    return rows
