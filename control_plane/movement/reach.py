"""Which committed outputs can still be read, and what that costs the run.

Called by `activities.py` after the fence, while nobody owns the rows; asks live agents through the
router, lets `lineage.py` decide, and declares in SQL. Nobody answers: nothing is declared, and the
next owner says UNREACHABLE itself.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection
from whimbrel.errors import Unreachable
from whimbrel.spec import Artifact, WorkflowSpec

from control_plane import documents
from control_plane.database import Database, table
from control_plane.executions.store import Execution
from control_plane.executions.timeline import Entry, tell
from control_plane.ledger.declare import declare_unreachable, live_outputs
from control_plane.ledger.fence import FenceRow, locked
from control_plane.movement.lineage import to_declare
from control_plane.registry.graphs import Graphs
from control_plane.routing.port import Router, Snapshot

log = logging.getLogger(__name__)

EXECUTION = table(Execution)

QUESTION = 1000
"""Artifacts of one question to an agent: about 300 KiB of message, some seconds of HEAD
requests."""

PROBERS = 3
"""Regions asked before bytes count as out of reach."""


@dataclass(frozen=True, slots=True)
class Held:
    """A run that nobody owns: its graph, and the artifacts of each live output."""

    row: FenceRow
    graph: WorkflowSpec
    outputs: Mapping[str, tuple[Artifact, ...]]


class Reach:
    def __init__(self, database: Database, router: Router, graphs: Graphs) -> None:
        self.database = database
        self.router = router
        self.graphs = graphs

    async def declare(self, rows: Sequence[FenceRow], *, snapshot: Snapshot, lost: str) -> None:
        """Declares what a node still to run reads and no live region can; safe to repeat."""
        async with self.database.read() as connection:
            held = [await self._load(connection, row) for row in rows]
        gone = await self._unreadable(held, snapshot=snapshot, lost=lost)
        for item in held:
            unreadable = {
                node: next(artifact.uri for artifact in artifacts if artifact.uri in gone)
                for node, artifacts in item.outputs.items()
                if any(artifact.uri in gone for artifact in artifacts)
            }
            reasons = to_declare(item.graph, live=item.outputs.keys(), unreadable=unreadable)
            if reasons:
                async with self.database.write() as connection:
                    # Somebody else has decided meanwhile: what is live is theirs to judge.
                    if (await locked(connection, [item.row.execution])) == {
                        item.row.execution: item.row
                    }:
                        await declare_unreachable(connection, item.row.execution, reasons)
                        await tell(connection, [entry(item, reasons)])

    async def _load(self, connection: AsyncConnection, row: FenceRow) -> Held:
        found = await connection.execute(
            select(EXECUTION.c.spec_digest).where(EXECUTION.c.id == row.execution)
        )
        graph = await self.graphs.get(connection, found.scalar_one())
        live = await live_outputs(connection, row.execution)
        return Held(
            row=row,
            graph=graph,
            outputs={
                node: (
                    *documents.artifacts(artifacts),
                    *filter(None, [documents.artifact(offloaded)]),
                )
                for node, (artifacts, offloaded) in live.items()
            },
        )

    async def _unreadable(self, held: Iterable[Held], *, snapshot: Snapshot, lost: str) -> set[str]:
        """Uris that none of the regions asked can read. A value without bytes is always there."""
        unread = {
            artifact.uri: artifact
            for item in held
            for artifacts in item.outputs.values()
            for artifact in artifacts
        }
        if not unread:
            return set()
        heard = False
        probers = [c.name for c in snapshot.clusters if c.alive and not c.suspected]
        for cluster in sorted(probers, key=lambda name: (name == lost, name))[:PROBERS]:
            try:
                gone = await self._ask(cluster, list(unread.values()))
            except Unreachable as error:
                log.warning("%s can't be asked what it can read: %s", cluster, error.message)
                continue
            heard = True
            unread = {uri: artifact for uri, artifact in unread.items() if uri in gone}
            if not unread:
                break
        return set(unread) if heard else set()

    async def _ask(self, cluster: str, artifacts: Sequence[Artifact]) -> set[str]:
        gone: set[str] = set()
        for start in range(0, len(artifacts), QUESTION):
            gone |= await self.router.probe(cluster, artifacts[start : start + QUESTION])
        return gone


def entry(item: Held, reasons: Mapping[str, str]) -> Entry:
    """Which nodes are kept shows in the run's view: their outputs are older than its placement."""
    kept = len(item.outputs) - len(reasons)
    names = ", ".join(sorted(reasons)[:10]) + (", ..." if len(reasons) > 10 else "")
    return Entry(
        item.row.execution,
        item.row.epoch,
        "unreachable",
        text=f"{kept} nodes kept, {len(reasons)} computed again: {names}",
    )
