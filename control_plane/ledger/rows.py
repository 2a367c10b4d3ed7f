"""Ledger values as rows, and rows as values: the statements that `commit.py` and `claims.py`
share.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import bindparam, case, delete, func, select, text, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection
from whimbrel.spec import Owner

from control_plane import documents
from control_plane.database import table
from control_plane.executions.store import Execution
from control_plane.ledger.events import Event, Output, Saved, Status
from control_plane.ledger.store import Checkpoint, NodeOutput, NodeState

EXECUTION = table(Execution)
OUTPUT = table(NodeOutput)
STATE = table(NodeState)
CHECKPOINT = table(Checkpoint)
LIVE = {"sqlite": text("live = 1"), "postgresql": text("live")}
"""As the partial index says it; SQLite compares the text of the two conditions."""


def insert_into(connection: AsyncConnection) -> Any:
    """INSERT with ON CONFLICT, of this database's dialect (both have the same one)."""
    return postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert


def output_row(
    execution: str, epoch: int, output: Output, *, cluster: str, cluster_epoch: int
) -> dict[str, Any]:
    return {
        "execution": execution,
        "node": output.node,
        "epoch": epoch,
        "attempt": output.attempt,
        "cluster": cluster,
        "cluster_epoch": cluster_epoch,
        "input_digest": output.input_digest,
        "output_digest": output.output_digest,
        "value": output.value,
        "offloaded": documents.text(output.offloaded),
        "artifacts": documents.texts(output.artifacts),
        "stdout": documents.text(output.stdout),
        "stderr": documents.text(output.stderr),
        "started_ns": output.started_ns,
        "ended_ns": output.ended_ns,
        "host": output.host,
        "live": True,
    }


def output_of(row: Mapping[Any, Any]) -> Output:
    return Output(
        node=row["node"],
        attempt=row["attempt"],
        value=row["value"],
        input_digest=row["input_digest"],
        output_digest=row["output_digest"],
        offloaded=documents.artifact(row["offloaded"]),
        artifacts=documents.artifacts(row["artifacts"]),
        started_ns=row["started_ns"],
        ended_ns=row["ended_ns"],
        stdout=documents.artifact(row["stdout"]),
        stderr=documents.artifact(row["stderr"]),
        epoch=row["epoch"],
        host=row["host"],
    )


async def insert_outputs(
    connection: AsyncConnection, rows: Sequence[dict[str, Any]]
) -> set[tuple[str, str]]:
    """Answers the (execution, node) that became live; where one was live already, it stays."""
    if not rows:
        return set()
    insert = insert_into(connection)
    statement = (
        insert(OUTPUT)
        .on_conflict_do_nothing(
            index_elements=[OUTPUT.c.execution, OUTPUT.c.node],
            index_where=LIVE[connection.dialect.name],
        )
        .returning(OUTPUT.c.execution, OUTPUT.c.node)
    )
    answered = await connection.execute(statement, list(rows))
    return {(row["execution"], row["node"]) for row in answered.mappings()}


async def withdraw(connection: AsyncConnection, keys: Sequence[tuple[str, str]]) -> None:
    """Takes back live outputs that this very transaction has inserted: nobody has seen them."""
    if keys:
        await connection.execute(
            delete(OUTPUT).where(
                OUTPUT.c.execution == bindparam("x"),
                OUTPUT.c.node == bindparam("n"),
                OUTPUT.c.live,
            ),
            [{"x": execution, "n": node} for execution, node in keys],
        )


async def live(
    connection: AsyncConnection, keys: Sequence[tuple[str, str]]
) -> dict[tuple[str, str], Output]:
    """The live outputs among (execution, node)."""
    if not keys:
        return {}
    found = await connection.execute(
        select(OUTPUT).where(
            OUTPUT.c.execution.in_(sorted({execution for execution, _ in keys})),
            OUTPUT.c.node.in_(sorted({node for _, node in keys})),
            OUTPUT.c.live,
        )
    )
    wanted = set(keys)
    return {
        (row["execution"], row["node"]): output_of(row)
        for row in found.mappings()
        if (row["execution"], row["node"]) in wanted
    }


async def waits_no_more(connection: AsyncConnection, executions: Collection[str]) -> None:
    """Something of these runs: whatever they wait for later, they wait anew."""
    if executions:
        await connection.execute(
            update(EXECUTION)
            .where(EXECUTION.c.id.in_(sorted(executions)), EXECUTION.c.waiting_ns > 0)
            .values(waiting_ns=0)
        )


async def upsert_states(
    connection: AsyncConnection, events: Sequence[tuple[Event, Status]], *, cluster: str
) -> None:
    """In order. An older epoch or attempt changes nothing; a failure of an attempt counts once."""
    if not events:
        return
    moved = await _moved(connection, events)
    insert = insert_into(connection)
    statement = insert(STATE)
    new = statement.excluded
    fresh = new.failed_attempt > STATE.c.failed_attempt
    kept = ("phase", "attempt", "epoch", "cluster", "started_ns", "ended_ns", "error")
    await connection.execute(
        statement.on_conflict_do_update(
            index_elements=[STATE.c.execution, STATE.c.node],
            set_={name: new[name] for name in (*kept, "stdout", "stderr", "host", "avoided")}
            | {
                name: STATE.c[name] + case((fresh, new[name]), else_=0)
                for name in ("user_failures", "system_failures")
            }
            | {"failed_attempt": case((fresh, new.failed_attempt), else_=STATE.c.failed_attempt)},
            where=(new.attempt >= STATE.c.attempt) & (new.epoch >= STATE.c.epoch),
        ),
        [
            state_row(
                event, status, cluster=cluster,
                moved=(event.execution, status.node, status.attempt, event.epoch) in moved,
            )
            for event, status in events
        ],
    )  # fmt: skip


async def _moved(
    connection: AsyncConnection, events: Sequence[tuple[Event, Status]]
) -> set[tuple[str, str, int, int]]:
    """(execution, node, attempt, epoch) that left their host when asked to, with a checkpoint of
    their own: nobody's failure, as the agent sees it too."""
    left = {
        (event.execution, status.node, status.attempt, event.epoch)
        for event, status in events
        if status.phase == "FAILED"
        and status.error is not None
        and (status.error.owner, status.error.kind) == (Owner.SYSTEM, "interrupted")
    }
    if not left:
        return left
    found = await connection.execute(
        select(
            CHECKPOINT.c.execution, CHECKPOINT.c.node, CHECKPOINT.c.attempt, CHECKPOINT.c.epoch
        ).where(CHECKPOINT.c.execution.in_(sorted({execution for execution, *_ in left})))
    )
    return left & {(execution, node, attempt, epoch) for execution, node, attempt, epoch in found}


def state_row(event: Event, status: Status, *, cluster: str, moved: bool) -> dict[str, Any]:
    """`moved`: this attempt's end counts as nobody's failure."""
    failed = status.phase == "FAILED"
    counts = failed and not moved
    owner = status.error.owner if status.error else Owner.SYSTEM
    return {
        "execution": event.execution,
        "node": status.node,
        "phase": "QUEUED" if failed and status.will_retry else status.phase,
        "attempt": status.attempt,
        "epoch": event.epoch,
        "cluster": cluster,
        "started_ns": status.started_ns,
        "ended_ns": status.ended_ns,
        "error": documents.text(status.error),
        "user_failures": int(counts and owner is Owner.USER),
        "system_failures": int(counts and owner is not Owner.USER),
        "failed_attempt": status.attempt if failed else 0,
        "lineage": "",
        "stdout": documents.text(status.stdout),
        "stderr": documents.text(status.stderr),
        "host": status.host,
        "avoided": documents.names_text(status.avoided),
    }


async def upsert_checkpoints(
    connection: AsyncConnection, events: Sequence[tuple[Event, Saved]]
) -> None:
    if not events:
        return
    insert = insert_into(connection)
    statement = insert(CHECKPOINT)
    new = statement.excluded
    await connection.execute(
        statement.on_conflict_do_update(
            index_elements=[CHECKPOINT.c.execution, CHECKPOINT.c.node],
            set_={name: new[name] for name in ("attempt", "epoch", "artifact", "at_ns")},
            where=(new.epoch > CHECKPOINT.c.epoch) | (new.at_ns >= CHECKPOINT.c.at_ns),
        ),
        [
            {
                "execution": event.execution,
                "node": saved.node,
                "attempt": saved.attempt,
                "epoch": event.epoch,
                "artifact": documents.text(saved.artifact),
                "at_ns": saved.at_ns,
            }
            for event, saved in events
        ],
    )


async def count_live(connection: AsyncConnection, execution: str) -> int:
    found = await connection.execute(
        select(func.count())
        .select_from(OUTPUT)
        .where(OUTPUT.c.execution == execution, OUTPUT.c.live)
    )
    return found.scalar_one()
