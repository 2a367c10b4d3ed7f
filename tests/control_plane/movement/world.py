"""Rows and a router for the tests of movement's steps: one run of `a -> b, a -> c` on `us-east`."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import insert, select
from sqlmodel import SQLModel
from whimbrel.errors import Unreachable
from whimbrel.spec import Artifact, Assignment, Mode, PlacementPolicy, Resources

from control_plane import documents
from control_plane.database import Database, table
from control_plane.executions.dispatch import Dispatch
from control_plane.executions.store import Execution, Timeline
from control_plane.ledger.store import ExecutionFence, NodeOutput
from control_plane.movement.activities import MovementSteps
from control_plane.registry.graphs import Graphs
from control_plane.routing.port import (
    AssignResult,
    Decision,
    LiveCluster,
    Registration,
    Requirement,
    Snapshot,
    Verdict,
)
from tests.control_plane.movement.graphs import graph

CHAIN = graph({"a": [], "b": ["a"], "c": ["a"]}, result=["c"])


class Regions:
    """A router whose agents can't read what lies under `gone`."""

    def __init__(self) -> None:
        self.clusters = [
            LiveCluster("us-east", "us-east", alive=False, suspected=True, cluster_epoch=3),
            LiveCluster("eu-west", "eu-west", cluster_epoch=1),
            LiveCluster("ap-south", "ap-south", cluster_epoch=1),
        ]
        self.gone = ""
        self.mute: set[str] = set()
        self.full = False
        self.refusing: set[str] = set()
        self.closed: set[str] = set()
        self.assignments: list[Assignment] = []

    async def snapshot(self) -> Snapshot:
        return Snapshot(tuple(self.clusters), ttl_ms=2000)

    async def place(self, requirements: Sequence[Requirement]) -> list[Decision]:
        return [self._decide(wanted) for wanted in requirements]

    def _decide(self, wanted: Requirement) -> Decision:
        for cluster in ("eu-west", "ap-south", "us-east"):
            refused = self.full or cluster in self.refusing | self.closed | {*wanted.avoid}
            lost = any(c.name == cluster and not c.alive for c in self.clusters)
            if not refused and not lost and (not wanted.only or cluster in wanted.only):
                return Decision(wanted.execution, cluster, cluster, decided_ns=len(wanted.avoid))
        return Decision(
            wanted.execution, "", reason="no_capacity",
            verdicts=tuple(
                Verdict(c.name, accepted=False, rule="room", why=f"{c.name} is full")
                for c in self.clusters
            ),
        )  # fmt: skip

    async def assign(self, assignments: Sequence[Assignment]) -> list[AssignResult]:
        self.assignments += assignments
        return [AssignResult(written=True, stored_epoch=item.epoch) for item in assignments]

    async def sync(self, registrations: Sequence[Registration]) -> None:
        self.closed = {item.name for item in registrations if item.scheduling != "active"}

    async def probe(self, cluster: str, artifacts: Sequence[Artifact]) -> set[str]:
        if cluster in self.mute:
            raise Unreachable(f"{cluster} does not answer")
        return {item.uri for item in artifacts if self.gone and item.uri.startswith(self.gone)}


class World:
    def __init__(self, database: Database) -> None:
        self.database = database
        self.router = Regions()
        router: Any = self.router  # the calls that a takeover makes, and no others
        self.steps = MovementSteps(
            database, router=router, dispatch=Dispatch(database, router), graphs=Graphs()
        )

    async def add(self, model: type[SQLModel], **values: Any) -> None:
        async with self.database.write() as connection:
            await connection.execute(insert(table(model)).values(**values))

    async def run(
        self, name: str, *, owner: str = "us-east", session: int = 3, epoch: int = 1,
        phase: str = "RUNNING", failover: bool = True, mode: Mode = Mode.IDEMPOTENT,
        priority: int = 0,
    ) -> str:  # fmt: skip
        id = f"p/d/{name}"
        await self.add(
            Execution,
            id=id, project="p", domain="d", name=name, workflow="w", version="1",
            spec_digest="chain", phase=phase, region=owner, cluster=owner, mode=mode.value,
            policy=documents.text(PlacementPolicy(failover=failover, mode=mode)),
            largest=documents.text(Resources()), inputs="{}", request_digest="", created_ns=1,
            priority=priority,
        )  # fmt: skip
        terminal = phase in ("SUCCEEDED", "FAILED", "ABORTED")
        await self.add(
            ExecutionFence,
            execution=id, epoch=epoch, owner_cluster=owner, owner_cluster_epoch=session,
            terminal=terminal,
        )  # fmt: skip
        return id

    async def output(self, id: str, node: str, *, uri: str = "") -> None:
        held = [Artifact(uri=uri, sha256="0", bytes=1, region="us-east")] if uri else []
        await self.add(
            NodeOutput,
            execution=id, node=node, epoch=1, attempt=1, cluster="us-east", cluster_epoch=3,
            input_digest="i", output_digest="o", value="{}", artifacts=documents.texts(held),
        )  # fmt: skip

    async def rows(self, model: type[SQLModel]) -> list[dict[str, Any]]:
        async with self.database.read() as connection:
            found = await connection.execute(select(table(model)))
            return [dict(row) for row in found.mappings()]

    async def fence(self, id: str) -> tuple[int, str]:
        row = next(row for row in await self.rows(ExecutionFence) if row["execution"] == id)
        return row["epoch"], row["owner_cluster"]

    async def phase(self, id: str) -> str:
        return next(row["phase"] for row in await self.rows(Execution) if row["id"] == id)

    async def live(self) -> set[str]:
        return {row["node"] for row in await self.rows(NodeOutput) if row["live"]}

    async def told(self, id: str) -> list[str]:
        return [row["kind"] for row in await self.rows(Timeline) if row["execution"] == id]
