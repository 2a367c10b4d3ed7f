"""Rows behind what was acknowledged: SQL was restored from an older backup. Alarm, and fence anew.

Called by the ledger (an agent names a newer epoch or session) and by whoever finds a newer
assignment key; the row goes above whatever was seen, to nobody, and its run is placed again.
"""

import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace

from sqlalchemy import insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection
from whimbrel.spec import Assignment, Phase, Want

from control_plane.clusters.store import Cluster
from control_plane.database import Database, exclusive, table
from control_plane.executions.lifecycle import move
from control_plane.executions.store import Execution
from control_plane.executions.timeline import Entry, tell
from control_plane.ledger.fence import FenceRow, locked, store
from control_plane.ledger.store import EventCursor
from control_plane.routing.port import AssignResult

LOG = logging.getLogger(__name__)
CLUSTER, CURSOR, EXECUTION = table(Cluster), table(EventCursor), table(Execution)
REASON = "restored"


async def fence_above(
    connection: AsyncConnection, seen: Mapping[str, int], *, by: str
) -> dict[str, FenceRow]:
    """`seen` are epochs that somebody was given; answers the rows afterwards. Ended runs stay as
    they are, and so does what is not behind."""
    rows = await locked(connection, list(seen))
    behind = {
        name: row for name, row in rows.items() if not row.terminal and row.epoch < seen[name]
    }
    for name in seen.keys() - rows.keys():
        LOG.critical(
            "alarm: %s has epoch %d of an execution that is not known here: SQL is older than it",
            by,
            seen[name],
            extra={"execution": name},
        )
    if not behind:
        return rows
    after = {name: above(row, seen[name]) for name, row in behind.items()}
    await store(connection, list(after.values()))
    found = await connection.execute(
        select(EXECUTION.c.id, EXECUTION.c.phase).where(EXECUTION.c.id.in_(list(after)))
    )
    story: list[Entry] = []
    now = time.time_ns()
    for name, phase in [tuple(row) for row in found]:
        text = f"SQL knew epoch {behind[name].epoch}, {by} has epoch {seen[name]}: fenced above it"
        LOG.critical("alarm: %s", text, extra={"execution": name, "epoch": after[name].epoch})
        story.append(Entry(name, after[name].epoch, "alarm", "", text))
        await connection.execute(
            update(EXECUTION)
            .where(EXECUTION.c.id == name)
            .values(
                phase=move(phase, Phase.WAITING),
                reason=REASON,
                cluster="",
                region="",
                waiting_ns=now,
            )
        )
    await tell(connection, story)
    return rows | after


def above(row: FenceRow, seen: int) -> FenceRow:
    """Not released: whoever had that epoch may be running it."""
    return replace(
        row,
        epoch=seen + 1,
        owner_cluster="",
        owner_cluster_epoch=0,
        decision_digest=f"restored/{seen + 1}",
        released=0,
        fenced_ns=time.time_ns(),
        key_epoch=max(row.key_epoch, seen),
        want=Want.RUN,
        gate=0,
    )


async def adopt_session(connection: AsyncConnection, cluster: str, cluster_epoch: int) -> bool:
    """A session that this database never opened, above all that it did: it goes on, its events
    count from 1, and every later session gets a higher epoch. False: it is no such session."""
    query = select(CLUSTER.c.cluster_epoch).where(CLUSTER.c.name == cluster)
    newest = (await connection.execute(query)).scalar_one_or_none()
    if newest is None or newest >= cluster_epoch:
        return False
    newest = (await connection.execute(exclusive(query))).scalar_one()
    if newest >= cluster_epoch:
        return False
    LOG.critical(
        "alarm: SQL knew session %d of %s, its agent has session %d: SQL is older than it",
        newest,
        cluster,
        cluster_epoch,
        extra={"cluster": cluster, "cluster_epoch": cluster_epoch},
    )
    await connection.execute(
        update(CLUSTER).where(CLUSTER.c.name == cluster).values(cluster_epoch=cluster_epoch)
    )
    await connection.execute(
        insert(CURSOR).values(cluster=cluster, cluster_epoch=cluster_epoch, cursor=0)
    )
    return True


async def compare_refusals(
    database: Database, written: Iterable[tuple[Assignment, AssignResult]]
) -> None:
    """A key that stands at an epoch above the row's was written before the backup was restored."""
    seen = {
        wish.execution: result.stored_epoch
        for wish, result in written
        if not result.written and result.stored_epoch > wish.epoch
    }
    if seen:
        async with database.write() as connection:
            await fence_above(connection, seen, by="an assignment key")
