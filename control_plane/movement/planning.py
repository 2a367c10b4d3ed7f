"""What a planned move would do: may it, where to, and what becomes of each node.

Called by `service.py` for a dry run and before a migration begins, and by the first step of its
story; reads rows, asks the router, changes nothing.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection
from whimbrel.errors import NotFound, Refused
from whimbrel.spec import Artifact, Mode, PlacementPolicy

from control_plane import documents
from control_plane.clusters.service import CLUSTER, unknown
from control_plane.database import Database, table
from control_plane.executions.dispatch import Loaded, load
from control_plane.ledger.fence import FenceRow
from control_plane.ledger.rows import CHECKPOINT, OUTPUT, STATE
from control_plane.ledger.store import Replica
from control_plane.movement.rows import EXECUTION
from control_plane.movement.views import NodePlan
from control_plane.registry.graphs import Graphs
from control_plane.routing.port import Decision, Router

REPLICA = table(Replica)


@dataclass(frozen=True, slots=True)
class Plan:
    """`decision.cluster` "" = nobody takes it, and its `reason` and verdicts say why."""

    loaded: Loaded
    decision: Decision
    nodes: tuple[NodePlan, ...]

    @property
    def row(self) -> FenceRow:
        return self.loaded.row

    @property
    def mode(self) -> Mode:
        return self.loaded.requirement.policy.mode


class Planning:
    def __init__(self, database: Database, router: Router, graphs: Graphs) -> None:
        self._database = database
        self._router = router
        self._graphs = graphs

    async def plan(self, execution: str, *, to: str = "") -> Plan:
        """Raises NotFound or Refused when no answer of the router could make it possible."""
        async with self._database.read() as connection:
            loaded = await self._movable(connection, execution, to)
        [decision] = await self.decide([loaded], to=to)
        async with self._database.read() as connection:
            return Plan(loaded, decision, await self._nodes(connection, loaded, decision.region))

    async def decide(self, runs: Sequence[Loaded], *, to: str = "") -> list[Decision]:
        """To `to`, else to anywhere but where each is."""
        asked = [
            replace(
                run.requirement,
                only=(to,) if to else run.requirement.only,
                avoid=(*run.requirement.avoid, *filter(None, [run.row.owner_cluster])),
            )
            for run in runs
        ]
        decisions = await self._router.place(asked) if asked else []
        return [told(decision, to) for decision in decisions]

    async def _movable(self, connection: AsyncConnection, execution: str, to: str) -> Loaded:
        loaded = (await load(connection, [execution])).get(execution)
        if loaded is None:
            raise NotFound(
                f"there is no execution {execution}", remedy="whimbrel execution list shows them"
            )
        if to:
            known = select(CLUSTER.c.name).where(CLUSTER.c.name == to)
            if (await connection.execute(known)).first() is None:
                raise unknown(to)
        if loaded.row.terminal:
            raise Refused(
                f"{execution} has ended already: {loaded.phase}",
                remedy="launch it again; only a run under way can be migrated",
            )
        owner = loaded.row.owner_cluster
        if not owner:
            raise Refused(
                f"{execution} is on no cluster: it is {loaded.phase} ({loaded.reason or 'new'})",
                remedy="it goes to any cluster that may take it; nothing is there to be migrated",
            )
        if to == owner:
            raise Refused(
                f"{execution} is on {to} already", remedy="name another cluster with --to"
            )
        return loaded

    async def _nodes(
        self, connection: AsyncConnection, run: Loaded, region: str
    ) -> tuple[NodePlan, ...]:
        name = run.row.execution
        digest = select(EXECUTION.c.spec_digest).where(EXECUTION.c.id == name)
        graph = await self._graphs.get(connection, (await connection.execute(digest)).scalar_one())
        there = await self._copies(connection, name, region)
        plans: dict[str, NodePlan] = {}
        now = time.time_ns()
        found = await connection.execute(select(STATE).where(STATE.c.execution == name))
        running = {
            row["node"]
            for row in found.mappings()
            if row["phase"] == "RUNNING" and row["epoch"] == run.row.epoch
        }
        for node in running:
            plans[node] = NodePlan(node, "run again", "it runs, and has no checkpoint")
        found = await connection.execute(select(CHECKPOINT).where(CHECKPOINT.c.execution == name))
        for row in found.mappings():
            saved = documents.artifact(row["artifact"])
            if saved is not None:
                age = max(0, now - row["at_ns"]) // 1_000_000_000
                missing = to_copy([saved], region, there)
                plans[row["node"]] = NodePlan(
                    row["node"], "resumed", f"checkpoint of {age} s ago", missing
                )
        found = await connection.execute(
            select(OUTPUT).where(OUTPUT.c.execution == name, OUTPUT.c.live)
        )
        for row in found.mappings():
            held = [*documents.artifacts(row["artifacts"])]
            held += filter(None, [documents.artifact(row["offloaded"])])
            missing = to_copy(held, region, there)
            why = f"{missing} bytes are copied to {region}" if missing else ""
            plans[row["node"]] = NodePlan(row["node"], "kept", why, missing)
        return tuple(plans.get(n.id, NodePlan(n.id, "not started")) for n in graph.nodes)

    async def _copies(self, connection: AsyncConnection, execution: str, region: str) -> set[str]:
        found = await connection.execute(
            select(REPLICA.c.uri).where(
                REPLICA.c.execution == execution, REPLICA.c.region == region
            )
        )
        return set(found.scalars())


def to_copy(artifacts: Sequence[Artifact], region: str, there: set[str]) -> int:
    """Bytes; none are known as long as no target is."""
    return sum(
        item.bytes
        for item in artifacts
        if region and item.region != region and item.uri not in there
    )


def told(decision: Decision, to: str) -> Decision:
    """Of one cluster that was asked for, its own rule is the reason, not everybody's."""
    own = next((v for v in decision.verdicts if v.cluster == to and not v.accepted), None)
    return replace(decision, reason=own.rule) if own and not decision.cluster else decision


def why(decision: Decision, to: str) -> str:
    """For a person: what the wanted cluster says, or what each says."""
    if decision.cluster:
        return ""
    said = [f"{v.cluster}: {v.why}" for v in decision.verdicts if not v.accepted and v.why]
    own = next((v.why for v in decision.verdicts if v.cluster == to and not v.accepted), "")
    return own or "; ".join(said) or decision.reason


FOR_GOOD = ("pinned", "failover_off")
"""Reasons of `why_stays`: asking again is of no use."""


def why_stays(policy: PlacementPolicy, cluster: str) -> tuple[str, str] | None:
    """(reason, for a person) of a run that only a person may move."""
    if policy.mode is Mode.PINNED:
        return "pinned", f"pinned to {cluster}: migrate it by name, or wait for its end"
    if not policy.failover:
        return "failover_off", f"its author wants it to stay on {cluster}: migrate it by name"
    return None
