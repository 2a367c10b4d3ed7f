"""The ledger: sessions, losses, claims, commits. One call, one transaction, then hints to
followers.

Called by `rpc.py` for agents, through the router; hands losses to movement and changed
ownerships to the delivery of wake-ups.
"""

import logging
import time
from collections.abc import AsyncIterator, Sequence

from sqlalchemy import select
from whimbrel.errors import InvalidInput

from control_plane.clusters.service import Clusters
from control_plane.database import Database, table
from control_plane.executions.changes import Changes
from control_plane.executions.delivery import Delivery
from control_plane.executions.store import Execution
from control_plane.ledger.claims import Claimed, claim_all
from control_plane.ledger.commit import Behind, commit
from control_plane.ledger.events import Batch, Committed, Output
from control_plane.ledger.restored import adopt_session, fence_above
from control_plane.registry.graphs import Graphs, spec_bytes
from control_plane.registry.service import Registry
from control_plane.routing.port import Movement
from control_plane.traces.spans import Spans

LOG = logging.getLogger(__name__)
EXECUTION = table(Execution)
AT_MOST = 1000
"""Events of a batch. More would hold the writer for long, and pass the limit of SQL parameters."""

REMEMBERED = 4096


class Ledger:
    def __init__(
        self, database: Database, *, clusters: Clusters, registry: Registry, graphs: Graphs,
        movement: Movement, delivery: Delivery, changes: Changes, spans: Spans,
        region: str = "",
    ) -> None:  # fmt: skip
        """`region` is where this control plane keeps what it is told, "" = everything may be."""
        self._database = database
        self._clusters = clusters
        self._registry = registry
        self._graphs = graphs
        self._movement = movement
        self._delivery = delivery
        self._changes = changes
        self._spans = spans
        self._region = region
        self._traces: dict[str, str] = {}

    async def open_session(self, cluster: str, *, incarnation: str, region: str) -> tuple[int, str]:
        epoch, scheduling = await self._clusters.open_session(
            cluster, incarnation=incarnation, region=region
        )
        LOG.info("session opened", extra={"cluster": cluster, "cluster_epoch": epoch})
        return epoch, scheduling

    async def lost(self, cluster: str, cluster_epoch: int, *, since_ns: int) -> None:
        LOG.warning("session lost", extra={"cluster": cluster, "cluster_epoch": cluster_epoch})
        await self._movement.lost(cluster, cluster_epoch, since_ns=since_ns)

    async def claim(
        self, wishes: Sequence[tuple[str, int]], *, cluster: str, cluster_epoch: int
    ) -> list[Claimed]:
        started = time.time_ns()
        async with self._database.write() as connection:
            await adopt_session(connection, cluster, cluster_epoch)
            answers = await claim_all(
                connection,
                wishes,
                cluster=cluster,
                cluster_epoch=cluster_epoch,
                region=self._region,
            )
            above = {
                item.execution: item.epoch
                for item in (claimed.answer for claimed in answers)
                if item.row is None or item.epoch > item.row.epoch
            }
            if above:
                await fence_above(connection, above, by=cluster)
        for claimed in answers:
            if claimed.answer.claimed:
                self._remember({claimed.answer.execution: claimed.traceparent})
                self._spans.record(
                    "claim",
                    claimed.traceparent,
                    started_ns=started,
                    attributes={
                        "execution": claimed.answer.execution,
                        "epoch": claimed.answer.epoch,
                        "cluster": cluster,
                        "kept": len(claimed.outputs),
                    },
                )
        self._changes.notify(claimed.answer.execution for claimed in answers)
        return answers

    async def commit(self, batch: Batch) -> Committed:
        if len(batch.events) > AT_MOST:
            raise InvalidInput(f"a batch has at most {AT_MOST} events, not {len(batch.events)}")
        started = time.time_ns()
        try:
            async with self._database.write() as connection:
                committed = await commit(connection, batch, self._graphs)
        except Behind:
            async with self._database.write() as connection:
                committed = await commit(connection, batch, self._graphs, behind=True)
        self._changes.notify(committed.touched)
        if committed.moved:
            self._delivery.hint()
        await self._record(batch, committed, started)
        return committed

    async def _record(self, batch: Batch, committed: Committed, started_ns: int) -> None:
        """One span a batch and execution that committed an output."""
        counts: dict[str, int] = {}
        for event in batch.events:
            if isinstance(event.body, Output):
                counts[event.execution] = counts.get(event.execution, 0) + 1
        wanted = [name for name in committed.touched if name in counts]
        if missing := [name for name in wanted if name not in self._traces]:
            async with self._database.read() as connection:
                found = await connection.execute(
                    select(EXECUTION.c.id, EXECUTION.c.traceparent).where(
                        EXECUTION.c.id.in_(missing)
                    )
                )
                self._remember({row["id"]: row["traceparent"] for row in found.mappings()})
        for name in wanted:
            self._spans.record(
                "commit",
                self._traces.get(name, ""),
                started_ns=started_ns,
                attributes={
                    "execution": name,
                    "cluster": batch.cluster,
                    "outputs": counts[name],
                    "first": batch.first,
                },
            )

    def _remember(self, traces: dict[str, str]) -> None:
        self._traces |= traces
        while len(self._traces) > REMEMBERED:
            del self._traces[next(iter(self._traces))]

    async def spec(self, digest: str) -> bytes:
        """The wire form."""
        async with self._database.read() as connection:
            return await spec_bytes(connection, digest)

    def bundle(self, digest: str) -> AsyncIterator[bytes]:
        return self._registry.bundle(digest)
