"""Where a planned move stands, read from the rows: has the run gone on without it, since when does
it stand still, since when does it run again.

Asked by the steps (`migrating.py`, `settling.py`) before and after they act.
"""

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from control_plane.database import Database
from control_plane.executions.timeline import Entry, tell
from control_plane.ledger.fence import FenceRow
from control_plane.ledger.rows import OUTPUT, STATE
from control_plane.movement import journal
from control_plane.movement.planned import Migrate, Stage, migrate_id
from control_plane.movement.rows import EXECUTION, current, decision, now_ns
from control_plane.registry.graphs import Graphs


async def gone_on(connection: AsyncConnection, mine: journal.Row) -> Stage | None:
    """How the run has gone on without this story; None = it has not."""
    row = await current(connection, mine["execution"])
    if row is None or row.terminal:
        return Stage("ENDED", why="the run has ended")
    if row.epoch == mine["from_epoch"] and row.owner_cluster in ("", mine["from_cluster"]):
        return None
    if row.owner_cluster == "" and row.decision_digest == decision(
        migrate_id(mine["execution"], mine["number"]), mine["execution"]
    ):
        return None
    where = row.owner_cluster or "nobody"
    return Stage(
        "TAKEN_OVER", row.owner_cluster, row.epoch,
        why=f"meanwhile epoch {row.epoch} belongs to {where}",
    )  # fmt: skip


async def last_work(connection: AsyncConnection, execution: str, *, since: int, until: int) -> int:
    """When user code last ended between the two, by its own host's clock; 0 = not known."""
    latest = 0
    for model in (STATE, OUTPUT):
        found = await connection.execute(
            select(func.max(model.c.ended_ns)).where(
                model.c.execution == execution,
                model.c.ended_ns >= since,
                model.c.ended_ns <= until,
            )
        )
        latest = max(latest, found.scalar_one_or_none() or 0)
    return latest


async def note_released(database: Database, story: Migrate, row: FenceRow) -> None:
    name, now = story.execution, now_ns()
    async with database.write() as connection:
        mine = await journal.migration(connection, name, story.number)
        if mine["released_ns"]:
            return
        last = await last_work(connection, name, since=mine["quiesced_ns"], until=now)
        await journal.note(
            connection, name, story.number, phase="RELEASED", released_ns=now,
            quiesced_ns=last or mine["quiesced_ns"] or now,
        )  # fmt: skip
        source = mine["from_cluster"]
        text = f"{source} has let go" if row.released else f"taken from {source}"
        await tell(connection, [Entry(name, row.epoch, "quiesced", source, text)])


async def first_work(
    connection: AsyncConnection, graphs: Graphs, *, execution: str, epoch: int
) -> int | None:
    """When user code first began at this epoch; now, if there is none to run; None = not yet."""
    started: list[int] = []
    for model in (STATE, OUTPUT):
        found = await connection.execute(
            select(func.min(model.c.started_ns)).where(
                model.c.execution == execution, model.c.epoch == epoch
            )
        )
        started += filter(None, [found.scalar_one_or_none()])
    if started:
        return min(started)
    run = select(EXECUTION.c.spec_digest).where(EXECUTION.c.id == execution)
    graph = await graphs.get(connection, (await connection.execute(run)).scalar_one())
    live = select(func.count()).where(OUTPUT.c.execution == execution, OUTPUT.c.live)
    done = (await connection.execute(live)).scalar_one() >= len(graph.nodes)
    return now_ns() if done else None
