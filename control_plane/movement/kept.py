"""What becomes of each node of a run whose bytes are partly out of reach: kept, kept as a copy,
resumed, begun anew or computed again, and why.

Called by `reach.py` with what was asked; `lineage.py` says what must be computed again. The answer
is written in the transaction that holds the run's row.
"""

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass

from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncConnection
from whimbrel.spec import Artifact, WorkflowSpec

from control_plane.executions.timeline import Entry, tell
from control_plane.ledger.declare import declare_unreachable
from control_plane.ledger.fence import FenceRow
from control_plane.ledger.replicas import Copies, Copy, choose, read_originals
from control_plane.ledger.rows import STATE
from control_plane.movement.lineage import to_declare

NAMED = 10
"""Nodes that a line of the run's story names: the rest is in the nodes' own lineage."""


@dataclass(frozen=True, slots=True)
class Held:
    """A run that nobody owns: its graph, the artifacts of each live output, the checkpoints of the
    other nodes, and the copies there are of either."""

    row: FenceRow
    graph: WorkflowSpec
    outputs: Mapping[str, tuple[Artifact, ...]]
    checkpoints: Mapping[str, Artifact]
    copies: Copies

    @property
    def made(self) -> list[Artifact]:
        return [
            *(artifact for artifacts in self.outputs.values() for artifact in artifacts),
            *self.checkpoints.values(),
        ]


@dataclass(frozen=True, slots=True)
class Kept:
    """`again`, `resumed` and `anew` say why, by node, `copied` nodes are kept; `instead` are copies
    to read in place of what nobody reaches, `originals` those that were read as copies and need
    not be any more."""

    again: Mapping[str, str]
    copied: tuple[str, ...]
    resumed: Mapping[str, str]
    anew: Mapping[str, str]
    instead: tuple[Copy, ...]
    originals: tuple[str, ...]

    @property
    def is_news(self) -> bool:
        fresh = not all(copy.chosen for copy in self.instead)
        return bool(self.again or self.anew or fresh or self.originals)

    async def write(self, connection: AsyncConnection, item: Held) -> None:
        name = item.row.execution
        await choose(connection, name, self.instead)
        await read_originals(connection, name, self.originals)
        await declare_unreachable(connection, name, self.again)
        for node, lineage in {**self.resumed, **self.anew}.items():
            await connection.execute(
                update(STATE)
                .where(STATE.c.execution == name, STATE.c.node == node)
                .values(lineage=lineage)
            )
        await tell(connection, self.entries(item))

    def entries(self, item: Held) -> list[Entry]:
        """Which nodes are simply kept shows in the run's view: their outputs are older than its
        placement."""
        lines: list[Entry] = []
        name, epoch = item.row.execution, item.row.epoch
        if self.again:
            kept = len(item.outputs) - len(self.again)
            text = f"{kept} nodes kept, {len(self.again)} computed again: {names(self.again)}"
            lines.append(Entry(name, epoch, "unreachable", text=text))
        regions = {copy.region for copy in self.instead}
        said = [
            f"{len(nodes)} {what}: {names(nodes)}"
            for what, nodes in (
                (f"kept as copies in {', '.join(sorted(regions))}", self.copied),
                ("resume from a copy of their checkpoint", self.resumed),
                ("begin anew, their checkpoint can't be read", self.anew),
            )
            if nodes
        ]
        if said:
            lines.append(Entry(name, epoch, "kept", text="; ".join(said)))
        return lines


def names(nodes: Iterable[str]) -> str:
    known = sorted(nodes)
    return ", ".join(known[:NAMED]) + (", ..." if len(known) > NAMED else "")


def judge(item: Held, *, gone: Set[str], at_hand: Set[str]) -> Kept:
    """`gone` are originals that no live region reads, `at_hand` copies that one does. Pure."""
    instead: dict[str, Copy] = {}
    for uri in {artifact.uri for artifact in item.made} & gone:
        copies = [copy for copy in item.copies.get(uri, ()) if copy.artifact.uri in at_hand]
        if copies:
            instead[uri] = min(copies, key=lambda copy: (not copy.chosen, copy.region))
    lost = {
        node: next(artifact.uri for artifact in artifacts if artifact.uri in gone - instead.keys())
        for node, artifacts in item.outputs.items()
        if any(artifact.uri in gone - instead.keys() for artifact in artifacts)
    }
    again = to_declare(item.graph, live=item.outputs.keys(), unreadable=lost)
    copied = tuple(
        node
        for node, artifacts in item.outputs.items()
        if node not in again and any(one.uri in instead for one in artifacts)
    )
    resumed: dict[str, str] = {}
    anew: dict[str, str] = {}
    for node, saved in item.checkpoints.items():
        if copy := instead.get(saved.uri):
            resumed[node] = f"resumed: copy of its checkpoint in {copy.region}"
        elif saved.uri in gone:
            anew[node] = f"begun anew: {saved.uri} can't be read from any live region"
    return Kept(
        again=again,
        copied=copied,
        resumed=resumed,
        anew=anew,
        instead=tuple(instead.values()),
        originals=tuple(
            artifact.uri
            for artifact in item.made
            if artifact.uri not in gone
            and any(copy.chosen for copy in item.copies.get(artifact.uri, ()))
        ),
    )
