"""A control plane without servers: real services on a real database, with fakes for the router and
movement, and the few verbs that scenarios are told in."""

import hashlib
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sqlalchemy import text
from whimbrel.errors import Unreachable
from whimbrel.spec import (
    Artifact,
    Assignment,
    Interface,
    NodeSpec,
    OutputRef,
    TaskSpec,
    Variable,
    WorkflowSpec,
    sha256,
)

from control_plane.clusters.service import Clusters
from control_plane.database import Database
from control_plane.executions.changes import Changes
from control_plane.executions.delivery import Delivery
from control_plane.executions.dispatch import Dispatch
from control_plane.executions.dispatcher import Dispatcher
from control_plane.executions.exclusive import OldCopies
from control_plane.executions.service import Executions, Launch
from control_plane.executions.sweeper import Sweeper
from control_plane.executions.view import View
from control_plane.ledger.claims import Claimed
from control_plane.ledger.events import Batch, Body, Committed, Event, Output
from control_plane.ledger.service import Ledger
from control_plane.registry.bundles import Bundles
from control_plane.registry.graphs import Graphs
from control_plane.registry.service import Key, Registry
from control_plane.routing.port import (
    AssignResult,
    Decision,
    LiveCluster,
    LogPart,
    LogPlace,
    Registration,
    Requirement,
    Snapshot,
    Verdict,
)
from control_plane.traces.spans import Spans

CODE = b"print('a bundle')"
BUNDLE = hashlib.sha256(CODE).hexdigest()


@dataclass
class FakeRouter:
    """Places on the first cluster of `up` that is not to be avoided; keys are a dictionary."""

    up: list[str] = field(default_factory=list)
    keys: dict[str, Assignment] = field(default_factory=dict)
    away: bool = False
    refuse_unassign: bool = False
    ttl_ms: int = 2000
    suspected: dict[str, int] = field(default_factory=dict)
    registrations: list[Registration] = field(default_factory=list)
    log: dict[LogPlace, bytes] = field(default_factory=dict)
    placements: int = 0
    asked: list[Requirement] = field(default_factory=list)
    copies_asked: list[tuple[str, tuple[Artifact, ...]]] = field(default_factory=list)
    unreadable: set[str] = field(default_factory=set)

    def _answer(self) -> None:
        if self.away:
            raise Unreachable("the router is away")

    async def place(self, requirements: Sequence[Requirement]) -> list[Decision]:
        self._answer()
        self.placements += len(requirements)
        self.asked += requirements
        return [self._decide(item) for item in requirements]

    def _decide(self, wanted: Requirement) -> Decision:
        open_to = [name for name in self.up if not wanted.only or name in wanted.only]
        free = [name for name in open_to if name not in wanted.avoid]
        verdicts = tuple(Verdict(name, name in free, region=f"r-{name}") for name in self.up)
        now = time.time_ns()
        if not free:
            return Decision(wanted.execution, "", "", "no_cluster_alive", verdicts, now)
        return Decision(wanted.execution, free[0], f"r-{free[0]}", "", verdicts, now)

    async def assign(self, assignments: Sequence[Assignment]) -> list[AssignResult]:
        self._answer()
        results: list[AssignResult] = []
        for item in assignments:
            stored = self.keys.get(item.execution)
            written = stored is None or stored.epoch <= item.epoch
            if written:
                self.keys[item.execution] = item
            results.append(AssignResult(written, stored.epoch if stored else 0))
        return results

    async def unassign(self, assignments: Sequence[Assignment]) -> list[AssignResult]:
        self._answer()
        results: list[AssignResult] = []
        for item in assignments:
            stored = self.keys.get(item.execution)
            newer = stored is not None and stored.epoch > item.epoch
            if self.refuse_unassign or newer:
                results.append(AssignResult(False, stored.epoch if stored else 0))
                continue
            self.keys.pop(item.execution, None)
            results.append(AssignResult(True))
        return results

    async def sync(self, registrations: Sequence[Registration]) -> None:
        self._answer()
        self.registrations = list(registrations)

    async def snapshot(self) -> Snapshot:
        self._answer()
        return Snapshot(
            tuple(
                LiveCluster(
                    name, f"r-{name}", alive=name not in self.suspected,
                    suspected=name in self.suspected, cluster_epoch=self.suspected.get(name, 1),
                )
                for name in {*self.up, *self.suspected}
            ),
            ttl_ms=self.ttl_ms,
        )  # fmt: skip

    async def assigned(self, cluster: str) -> list[Assignment]:
        self._answer()
        return [item for item in self.keys.values() if item.cluster == cluster]

    async def probe(self, cluster: str, artifacts: Sequence[Artifact]) -> set[str]:
        self._answer()
        return {one.uri for one in artifacts if one.uri in self.unreadable}

    async def copy(
        self, cluster: str, artifacts: Sequence[Artifact], *, folder: str
    ) -> dict[str, Artifact]:
        self._answer()
        self.copies_asked.append((cluster, tuple(artifacts)))
        region = f"r-{cluster}"
        return {
            one.uri: replace(one, uri=f"s3://{cluster}/{folder}/{one.sha256}", region=region)
            for one in artifacts
            if one.uri not in self.unreadable
        }

    async def read_log(self, cluster: str, place: LogPlace, *, offset: int, limit: int) -> LogPart:
        self._answer()
        data = self.log.get(place, b"")[offset : offset + limit]
        return LogPart(data, end=True, attempt=place.attempt)


@dataclass
class FakeMovement:
    losses: list[tuple[str, int]] = field(default_factory=list)
    moves: list[tuple[str, int]] = field(default_factory=list)
    resumed: list[tuple[str, int]] = field(default_factory=list)

    async def lost(self, cluster: str, cluster_epoch: int, *, since_ns: int) -> None:
        self.losses.append((cluster, cluster_epoch))

    async def move(self, execution: str, epoch: int, *, cause: str) -> None:
        self.moves.append((execution, epoch))

    async def resume(self, execution: str, number: int, *, epoch: int, cause: str) -> None:
        self.resumed.append((execution, number))


def chain(*nodes: str, name: str = "flows.chain") -> WorkflowSpec:
    """Each node reads the one before; one input `n`, a whole number, default 1."""
    task = TaskSpec(name="flows.step", entry_point="flows:step", bundle=BUNDLE,
                    interface=Interface())  # fmt: skip
    return WorkflowSpec(
        name=name,
        interface=Interface(
            inputs=(Variable("n", {"type": "integer"}, required=False, default=1),)
        ),
        nodes=tuple(
            NodeSpec(node, task.name, {"x": OutputRef(nodes[index - 1], "o0")} if index else {})
            for index, node in enumerate(nodes)
        ),
        tasks=(task,),
        outputs={"o0": OutputRef(nodes[-1], "o0")},
        bundle=BUNDLE,
    )


def fan(width: int) -> WorkflowSpec:
    """`width` nodes that read nothing."""
    single = chain("n0", name="flows.fan")
    return replace(single, nodes=tuple(NodeSpec(f"n{i}", "flows.step") for i in range(width)))


def output(node: str, value: str = "1", *, uri: str = "", attempt: int = 1) -> Output:
    artifacts = (Artifact(uri, sha256(uri), 1, "r"),) if uri else ()
    return Output(
        node, attempt, f'{{"o0":{value}}}', "in", sha256(value), artifacts=artifacts, started_ns=1,
        ended_ns=2,
    )  # fmt: skip


@dataclass
class World:
    database: Database
    router: FakeRouter
    movement: FakeMovement
    dispatch: Dispatch
    dispatcher: Dispatcher
    delivery: Delivery
    executions: Executions
    ledger: Ledger
    registry: Registry
    clusters: Clusters
    sweeper: Sweeper
    graphs: Graphs
    changes: Changes
    now: int = 0
    clock: float = 0.0
    """What the control plane's own monotonic clock says."""
    sent: dict[tuple[str, int], int] = field(default_factory=dict)

    @staticmethod
    async def build(database: Database, folder: Path, *, region: str = "") -> "World":
        router, movement = FakeRouter(), FakeMovement()
        graphs, changes, spans = Graphs(), Changes(), Spans()
        world: list[World] = []
        dispatch = Dispatch(
            database, router, spans, clock=lambda: (world and world[0].now) or time.time_ns(),
            old_copies=OldCopies(database, router, clock=lambda: world[0].clock),
        )  # fmt: skip
        dispatcher = Dispatcher(dispatch, changes)
        delivery = Delivery(database, router, dispatcher=dispatcher, changes=changes)
        registry = Registry(database, Bundles((folder / "bundles").as_uri()))
        clusters = Clusters(database, router)
        executions = Executions(
            database, router, graphs=graphs, dispatcher=dispatcher, delivery=delivery,
            changes=changes, spans=spans, region=region,
        )  # fmt: skip
        ledger = Ledger(
            database, clusters=clusters, registry=registry, graphs=graphs, movement=movement,
            delivery=delivery, changes=changes, spans=spans, region=region,
        )  # fmt: skip
        sweeper = Sweeper(
            database, router, dispatch=dispatch, dispatcher=dispatcher, delivery=delivery,
            movement=movement, changes=changes, claim_timeout_seconds=15,
            clock=lambda: world[0].now or time.time_ns(),
        )  # fmt: skip
        world.append(
            World(
                database, router, movement, dispatch, dispatcher, delivery, executions, ledger,
                registry, clusters, sweeper, graphs, changes,
            )
        )  # fmt: skip
        await registry.put_bundle(pieces(BUNDLE, CODE))
        return world[0]

    def later(self, seconds: float) -> None:
        self.now = time.time_ns() + int(seconds * 1e9)

    async def join(self, *clusters: str) -> None:
        """Registers clusters and opens their first session."""
        for name in clusters:
            await self.clusters.register(Registration(name, f"r-{name}"))
            await self.session(name)
            self.router.up.append(name)

    async def session(self, cluster: str) -> int:
        epoch, _ = await self.ledger.open_session(cluster, incarnation="i", region=f"r-{cluster}")
        return epoch

    async def launch(self, spec: WorkflowSpec | None = None, name: str = "run", **more: Any) -> str:
        spec = spec or chain("a", "b", "c")
        await self.registry.register("p", "d", "v1", [spec])
        key = Key("p", "d", spec.name, "v1")
        view = await self.executions.launch(Launch("p", "d", name, key, **more))
        return view.id

    async def placed(self, spec: WorkflowSpec | None = None, name: str = "run") -> str:
        execution = await self.launch(spec, name)
        await self.dispatcher.drain()
        return execution

    async def running(self, spec: WorkflowSpec | None = None, name: str = "run") -> str:
        """Launched, dispatched and claimed by the first cluster's first session."""
        execution = await self.placed(spec, name)
        assert (await self.claim(execution, 1, "east", 1)).answer.claimed
        return execution

    async def claim(self, execution: str, epoch: int, cluster: str, session: int) -> Claimed:
        [answer] = await self.ledger.claim(
            [(execution, epoch)], cluster=cluster, cluster_epoch=session
        )
        return answer

    async def send(
        self, execution: str, *bodies: Body, epoch: int = 1, cluster: str = "east",
        session: int = 1, first: int = 0,
    ) -> Committed:  # fmt: skip
        """Commits as one batch, numbered after the last one of this session."""
        number = first or self.sent.get((cluster, session), 0) + 1
        events = tuple(Event(execution, epoch, body) for body in bodies)
        self.sent[cluster, session] = max(
            self.sent.get((cluster, session), 0), number + len(events) - 1
        )
        return await self.ledger.commit(Batch(cluster, session, number, events))

    async def view(self, execution: str) -> View:
        return await self.executions.get(execution)

    async def rows(self, *tables: str) -> dict[str, list[tuple[Any, ...]]]:
        """Everything durable (without the cursors, which count also what is refused)."""
        names = tables or (
            "execution", "execution_fence", "node_output", "node_state", "checkpoint", "timeline",
            "wakeup", "placement",
        )  # fmt: skip
        found: dict[str, list[tuple[Any, ...]]] = {}
        async with self.database.read() as connection:
            for name in names:
                rows = await connection.execute(text(f"SELECT * FROM {name}"))
                found[name] = sorted([tuple(row) for row in rows], key=repr)
        return found


async def pieces(digest: str, data: bytes, size: int = 7) -> AsyncIterator[tuple[str, bytes]]:
    for start in range(0, max(len(data), 1), size):
        yield (digest if start == 0 else ""), data[start : start + size]
