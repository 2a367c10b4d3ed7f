"""A run as people see it, gathered from the rows in one consistent look.

Called by `service.py` and `watch.py`; `codec.py` turns it into the wire's form. A node with a live
output has SUCCEEDED; the news of the others are in their state rows.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import RowMapping, select
from sqlalchemy.ext.asyncio import AsyncConnection
from whimbrel.errors import NotFound
from whimbrel.spec import Artifact, Failure, Phase

from control_plane import documents
from control_plane.database import table
from control_plane.executions.store import Execution, Placement, Timeline
from control_plane.ledger.fence import FENCE
from control_plane.ledger.replicas import Copies, best, copies_of
from control_plane.ledger.rows import CHECKPOINT, OUTPUT, STATE
from control_plane.registry.graphs import Graphs
from control_plane.routing.port import Verdict

EXECUTION = table(Execution)
PLACEMENT = table(Placement)
TIMELINE = table(Timeline)
LOOKED_AT = (Phase.QUEUED, Phase.WAITING)
LOOK_NS = 2_000_000_000
"""The sweeper looks every second, and a round over all who wait ends within another."""


@dataclass(frozen=True, slots=True)
class NodeView:
    id: str
    task: str
    phase: str = "QUEUED"
    attempt: int = 0
    epoch: int = 0
    cluster: str = ""
    checkpoint: str = ""
    started_ns: int = 0
    ended_ns: int = 0
    error: Failure | None = None
    outputs: str = ""
    lineage: str = ""
    stdout: Artifact | None = None
    stderr: Artifact | None = None
    host: str = ""
    avoided: tuple[str, ...] = ()
    user_failures: int = 0
    system_failures: int = 0


@dataclass(frozen=True, slots=True)
class PlacementView:
    epoch: int
    cluster: str
    region: str
    cause: str
    reason: str
    verdicts: tuple[Verdict, ...]
    decided_ns: int


@dataclass(frozen=True, slots=True)
class EntryView:
    at_ns: int
    epoch: int
    kind: str
    cluster: str
    text: str


@dataclass(frozen=True, slots=True)
class View:
    id: str
    workflow: str
    version: str
    phase: Phase
    reason: str
    region: str
    cluster: str
    epoch: int
    inputs: str
    outputs: str
    error: Failure | None
    created_ns: int
    started_ns: int
    ended_ns: int
    trace_id: str
    mode: str
    nodes: tuple[NodeView, ...] = ()
    placements: tuple[PlacementView, ...] = ()
    timeline: tuple[EntryView, ...] = ()
    next_look_ns: int = field(default=0, compare=False)
    """When a waiting run is looked at again at the latest; no news by itself."""


def heads() -> Any:
    """The query of runs without their parts."""
    return select(EXECUTION, FENCE.c.epoch).join_from(
        EXECUTION, FENCE, FENCE.c.execution == EXECUTION.c.id
    )


def head(row: Mapping[Any, Any]) -> View:
    return View(
        id=row["id"],
        workflow=row["workflow"],
        version=row["version"],
        phase=Phase(row["phase"]),
        reason=row["reason"],
        region=row["region"],
        cluster=row["cluster"],
        epoch=row["epoch"],
        inputs=row["inputs"],
        outputs=row["outputs"],
        error=documents.failure(row["error"]),
        created_ns=row["created_ns"],
        started_ns=row["started_ns"],
        ended_ns=row["ended_ns"],
        trace_id=trace_id(row["traceparent"]),
        mode=row["mode"],
        next_look_ns=time.time_ns() + LOOK_NS if row["phase"] in LOOKED_AT else 0,
    )


def trace_id(traceparent: str) -> str:
    parts = traceparent.split("-")
    return parts[1] if len(parts) == 4 else ""


async def _row(connection: AsyncConnection, execution: str) -> RowMapping:
    found = await connection.execute(heads().where(EXECUTION.c.id == execution))
    row = found.mappings().one_or_none()
    if row is None:
        raise NotFound(
            f"there is no execution {execution}", remedy="whimbrel execution list shows them"
        )
    return row


async def head_of(connection: AsyncConnection, execution: str) -> View:
    """Without nodes, placements and timeline: one statement."""
    return head(await _row(connection, execution))


async def view(connection: AsyncConnection, execution: str, graphs: Graphs) -> View:
    row = await _row(connection, execution)
    placements = await _placements(connection, execution)
    graph = await graphs.get(connection, row["spec_digest"])
    nodes = {node.id: NodeView(node.id, node.task) for node in graph.nodes}
    await _states(connection, execution, nodes)
    placed = max((item.epoch for item in placements if item.cluster), default=0)
    await _outputs(connection, execution, nodes, placed, row["region"])
    shown = head(row)
    if shown.phase.terminal:
        for name, node in nodes.items():
            if node.phase in ("QUEUED", "RUNNING"):
                nodes[name] = replace(node, phase="SKIPPED")
    story = await connection.execute(
        select(TIMELINE).where(TIMELINE.c.execution == execution).order_by(TIMELINE.c.id)
    )
    return replace(
        shown,
        nodes=tuple(nodes.values()),
        placements=tuple(placements),
        timeline=tuple(
            EntryView(line["at_ns"], line["epoch"], line["kind"], line["cluster"], line["text"])
            for line in story.mappings()
        ),
    )


async def _placements(connection: AsyncConnection, execution: str) -> list[PlacementView]:
    found = await connection.execute(
        select(PLACEMENT).where(PLACEMENT.c.execution == execution).order_by(PLACEMENT.c.epoch)
    )
    return [
        PlacementView(
            epoch=row["epoch"],
            cluster=row["cluster"],
            region=row["region"],
            cause=row["cause"],
            reason=row["reason"],
            verdicts=documents.verdicts(row["verdicts"]),
            decided_ns=row["decided_ns"],
        )
        for row in found.mappings()
    ]


async def _states(connection: AsyncConnection, execution: str, nodes: dict[str, NodeView]) -> None:
    found = await connection.execute(select(STATE).where(STATE.c.execution == execution))
    for row in found.mappings():
        if known := nodes.get(row["node"]):
            nodes[known.id] = replace(
                known,
                phase=row["phase"],
                attempt=row["attempt"],
                epoch=row["epoch"],
                cluster=row["cluster"],
                started_ns=row["started_ns"],
                ended_ns=row["ended_ns"],
                error=documents.failure(row["error"]),
                lineage=row["lineage"],
                stdout=documents.artifact(row["stdout"]),
                stderr=documents.artifact(row["stderr"]),
                host=row["host"],
                avoided=documents.names(row["avoided"]),
                user_failures=row["user_failures"],
                system_failures=row["system_failures"],
            )
    saved = await connection.execute(
        select(CHECKPOINT.c.node, CHECKPOINT.c.artifact).where(CHECKPOINT.c.execution == execution)
    )
    for row in saved.mappings():
        artifact = documents.artifact(row["artifact"])
        if artifact and (known := nodes.get(row["node"])):
            nodes[known.id] = replace(known, checkpoint=artifact.uri)


async def _outputs(
    connection: AsyncConnection,
    execution: str,
    nodes: dict[str, NodeView],
    placed: int,
    region: str,
) -> None:
    """`placed` is the epoch of the newest placement: an older output was kept, read in `region`."""
    copies = (await copies_of(connection, [execution])).get(execution, {})
    found = await connection.execute(
        select(OUTPUT).where(OUTPUT.c.execution == execution, OUTPUT.c.live)
    )
    for row in found.mappings():
        if known := nodes.get(row["node"]):
            nodes[known.id] = replace(
                known,
                phase="SUCCEEDED",
                attempt=row["attempt"],
                epoch=row["epoch"],
                cluster=row["cluster"],
                started_ns=row["started_ns"],
                ended_ns=row["ended_ns"],
                error=None,
                outputs=row["value"],
                lineage=_kept(row, copies, region) if row["epoch"] < placed else known.lineage,
                stdout=documents.artifact(row["stdout"]),
                stderr=documents.artifact(row["stderr"]),
                host=row["host"],
                avoided=known.avoided if known.attempt == row["attempt"] else (),
            )


def _kept(row: RowMapping, copies: Copies, region: str) -> str:
    """Read as a copy, where its reader does not read the original."""
    if not copies:
        return "kept"
    held = [
        *documents.artifacts(row["artifacts"]),
        *filter(None, [documents.artifact(row["offloaded"])]),
    ]
    read = [best(copies.get(one.uri, ()), region) for one in held if one.region != region]
    regions = sorted({copy.region for copy in read if copy})
    return f"kept: copy in {', '.join(regions)}" if regions else "kept"
