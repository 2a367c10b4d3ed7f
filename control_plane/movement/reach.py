"""Which committed outputs and checkpoints can still be read, and what that costs the run.

Called by `activities.py` after the fence, while nobody owns the rows; asks live agents through the
router, and lets `kept.py` decide and write. Nobody answers: nothing is declared, and the next owner
says UNREACHABLE itself.
"""

import logging
from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection
from whimbrel.errors import Unreachable
from whimbrel.spec import Artifact

from control_plane import documents
from control_plane.database import Database, table
from control_plane.executions.store import Execution
from control_plane.ledger.declare import live_outputs
from control_plane.ledger.fence import FenceRow, locked
from control_plane.ledger.replicas import copies_of
from control_plane.ledger.rows import CHECKPOINT
from control_plane.movement.kept import Held, judge
from control_plane.registry.graphs import Graphs
from control_plane.routing.port import Router, Snapshot

log = logging.getLogger(__name__)

EXECUTION = table(Execution)

QUESTION = 1000
"""Artifacts of one question to an agent: about 300 KiB of message, some seconds of HEAD
requests."""

PROBERS = 3
"""Regions asked before bytes count as out of reach."""


class Reach:
    def __init__(self, database: Database, router: Router, graphs: Graphs) -> None:
        self.database = database
        self.router = router
        self.graphs = graphs

    async def declare(self, rows: Sequence[FenceRow], *, snapshot: Snapshot, lost: str) -> None:
        """Chooses copies of what no live region can read, and declares what has none and a node
        still to run reads; safe to repeat."""
        async with self.database.read() as connection:
            held = await self._load(connection, rows)
        made = [artifact for item in held for artifact in item.made]
        readable = await self._readable(made, snapshot=snapshot, lost=lost)
        if readable is None:
            return
        gone = {artifact.uri for artifact in made} - readable
        copies = [
            copy
            for item in held
            for uri, each in item.copies.items()
            for copy in each
            if uri in gone
        ]
        at_hand = await self._readable(
            [copy.artifact for copy in copies], snapshot=snapshot, lost=lost
        )
        for item in held:
            result = judge(item, gone=gone, at_hand=at_hand or set())
            if result.is_news:
                async with self.database.write() as connection:
                    # Somebody else has decided meanwhile: what is live is theirs to judge.
                    name = item.row.execution
                    if (await locked(connection, [name])) == {name: item.row}:
                        await result.write(connection, item)

    async def _load(self, connection: AsyncConnection, rows: Sequence[FenceRow]) -> list[Held]:
        copies = await copies_of(connection, [row.execution for row in rows])
        held: list[Held] = []
        for row in rows:
            found = await connection.execute(
                select(EXECUTION.c.spec_digest).where(EXECUTION.c.id == row.execution)
            )
            graph = await self.graphs.get(connection, found.scalar_one())
            live = await live_outputs(connection, row.execution)
            saved = await connection.execute(
                select(CHECKPOINT.c.node, CHECKPOINT.c.artifact).where(
                    CHECKPOINT.c.execution == row.execution
                )
            )
            held.append(
                Held(
                    row=row,
                    graph=graph,
                    outputs={
                        node: (
                            *documents.artifacts(artifacts),
                            *filter(None, [documents.artifact(offloaded)]),
                        )
                        for node, (artifacts, offloaded) in live.items()
                    },
                    checkpoints={
                        node: artifact
                        for node, text in saved
                        if node not in live and (artifact := documents.artifact(text))
                    },
                    copies=copies.get(row.execution, {}),
                )
            )
        return held

    async def _readable(
        self, artifacts: Sequence[Artifact], *, snapshot: Snapshot, lost: str
    ) -> set[str] | None:
        """Uris that one of the regions asked can read; None: nobody answered. A value without
        bytes is always there."""
        unread = {artifact.uri: artifact for artifact in artifacts}
        everything = set(unread)
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
        return everything - unread.keys() if heard else None

    async def _ask(self, cluster: str, artifacts: Sequence[Artifact]) -> set[str]:
        gone: set[str] = set()
        for start in range(0, len(artifacts), QUESTION):
            gone |= await self.router.probe(cluster, artifacts[start : start + QUESTION])
        return gone
