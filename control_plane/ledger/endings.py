"""What ends an ownership: success, failure, release, an input that can't be read.

Called by `commit.py` for one event whose fence row is locked; writes the run's row, declares what
is unreachable, and hands back the fence row as it is to be afterwards.
"""

import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection
from whimbrel.spec import Failure, Owner, Phase

from control_plane import documents
from control_plane.database import table
from control_plane.executions import no_room
from control_plane.executions.lifecycle import move
from control_plane.executions.store import Execution, Timeline
from control_plane.executions.timeline import Entry
from control_plane.ledger import rows
from control_plane.ledger.declare import declare_unreachable, live_outputs
from control_plane.ledger.events import Event, Failed, Released, Succeeded, Unreachable
from control_plane.ledger.fence import FenceRow, abandoned, ended, relinquished
from control_plane.ledger.replicas import read_elsewhere
from control_plane.movement.lineage import to_declare
from control_plane.registry.graphs import Graphs

EXECUTION, TIMELINE = table(Execution), table(Timeline)


@dataclass(frozen=True, slots=True)
class Ending:
    row: FenceRow
    entry: Entry


class Endings:
    def __init__(self, connection: AsyncConnection, graphs: Graphs) -> None:
        self._connection = connection
        self._graphs = graphs

    async def end(self, row: FenceRow, event: Event) -> Ending | None:
        """None: it can't end so, an output is missing."""
        found = await self._connection.execute(
            select(
                EXECUTION.c.phase, EXECUTION.c.spec_digest, EXECUTION.c.waiting_ns,
                EXECUTION.c.policy,
            ).where(EXECUTION.c.id == row.execution)
        )  # fmt: skip
        phase, digest, waiting_ns, policy = found.one()
        match event.body:
            case Succeeded(outputs):
                graph = await self._graphs.get(self._connection, digest)
                if await rows.count_live(self._connection, row.execution) < len(graph.nodes):
                    return None
                await self._write(row, phase=move(phase, Phase.SUCCEEDED), reason="",
                                  outputs=outputs, ended_ns=time.time_ns())  # fmt: skip
                return self._ending(row, ended(row), "succeeded", "every output is committed")
            case Failed(error):
                return await self._fail(row, phase, error)
            case Released(reason, message):
                if reason in (no_room.REASON, no_room.STOPPING):
                    await no_room.mark(self._connection, row.execution, row.owner_cluster)
                if phase != Phase.MOVING:
                    since = waiting_ns if reason == no_room.REASON else 0
                    limit = documents.policy(policy).max_wait_seconds
                    # Told here: where clusters pass it on at once, no sweeper sees it waiting.
                    if since and 0 < limit * 1e9 < time.time_ns() - since:
                        return await self._fail(row, phase, no_room.too_long(limit, message))
                    await self._wait(row, phase, reason or "released", since=since)
                said = message or "its owner let go"
                return self._ending(row, relinquished(row), "released", said)
            case Unreachable(node, uris):
                said = f"{node} can't read {', '.join(uris)}"
                instead = await read_elsewhere(self._connection, row.execution, uris)
                again = await self._declare(row, digest, instead.lost)
                if not again and not instead.turned:
                    return await self._unreadable(row, phase, node, said)
                if instead.turned:
                    said = f"{said}; read elsewhere: {', '.join(instead.turned)}"
                if again:
                    said = f"{said}; computed again: {', '.join(again)}"
                await self._wait(row, phase, no_room.UNREADABLE)
                after = abandoned(row, decision_digest=f"unreadable_input/{row.epoch + 1}")
                return self._ending(row, after, "unreachable", said)
            case _:
                raise AssertionError(f"{event.body} ends nothing")

    async def _unreadable(self, row: FenceRow, phase: str, node: str, said: str) -> Ending:
        """No node made it, so nothing is computed again: another cluster may read it, or the same
        one later, but not for ever."""
        made = (
            select(func.coalesce(func.max(rows.OUTPUT.c.epoch), 0))
            .where(rows.OUTPUT.c.execution == row.execution, rows.OUTPUT.c.live)
            .scalar_subquery()
        )
        found = await self._connection.execute(
            select(func.count()).where(
                TIMELINE.c.execution == row.execution,
                TIMELINE.c.kind == "unreadable",
                TIMELINE.c.cluster == row.owner_cluster,
                # It is told at the epoch after the one that it ends.
                TIMELINE.c.epoch > made + 1,
            )
        )
        before: int = found.scalar_one()
        if before + 1 >= no_room.READS:
            message = f"{said}; {row.owner_cluster} tried {before + 1} times"
            error = Failure(Owner.CONFIG, no_room.UNREADABLE, message, node)
            return await self._fail(row, phase, error)
        await no_room.mark(
            self._connection, row.execution, row.owner_cluster, pause_seconds=no_room.pause(before)
        )
        await self._wait(row, phase, no_room.UNREADABLE)
        after = abandoned(row, decision_digest=f"unreadable_input/{row.epoch + 1}")
        return self._ending(row, after, "unreadable", f"{said}; no node makes it")

    async def _declare(self, row: FenceRow, digest: str, uris: Collection[str]) -> list[str]:
        """The nodes to compute again."""
        graph = await self._graphs.get(self._connection, digest)
        live = await live_outputs(self._connection, row.execution)
        lost: dict[str, str] = {}
        for name, texts in live.items():
            held = [*documents.artifacts(texts[0])]
            if offloaded := documents.artifact(texts[1]):
                held.append(offloaded)
            for artifact in held:
                if artifact.uri in uris:
                    lost[name] = artifact.uri
        reasons = to_declare(graph, live=live.keys(), unreadable=lost)
        await declare_unreachable(self._connection, row.execution, reasons)
        return list(reasons)

    async def _fail(self, row: FenceRow, phase: str, error: Failure) -> Ending:
        await self._write(row, phase=move(phase, Phase.FAILED), reason=error.kind,
                          error=documents.text(error), ended_ns=time.time_ns())  # fmt: skip
        said = f"{error.node}: {error.message}" if error.node else error.message
        return self._ending(row, ended(row), "failed", said)

    async def _wait(self, row: FenceRow, phase: str, reason: str, *, since: int = 0) -> None:
        """`since` it waits for the same already, 0 = it begins to wait now."""
        await self._write(row, phase=move(phase, Phase.WAITING), reason=reason, cluster="",
                          region="", waiting_ns=since or time.time_ns())  # fmt: skip

    async def _write(self, row: FenceRow, **values: Any) -> None:
        await self._connection.execute(
            update(EXECUTION).where(EXECUTION.c.id == row.execution).values(**values)
        )

    def _ending(self, row: FenceRow, after: FenceRow, kind: str, said: str) -> Ending:
        return Ending(after, Entry(row.execution, after.epoch, kind, row.owner_cluster, said))
