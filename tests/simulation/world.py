"""A whole federation on one simulated loop: the real control plane, the real router, real agents.

Each can be killed, frozen out or started again; SQL is a real SQLite file, etcd is `etcd.py`, and
stories are told without Temporal: their steps, one after the other, until they are through.
"""

import asyncio
import contextlib
import itertools
import random
import sqlite3
from pathlib import Path

from whimbrel.errors import WhimbrelError
from whimbrel.spec import Mode, PlacementPolicy
from whimbrel.wire.v1 import ledger_pb2_grpc

from control_plane.clusters.service import Clusters
from control_plane.database import Database
from control_plane.executions.changes import Changes
from control_plane.executions.delivery import Delivery
from control_plane.executions.dispatch import Dispatch
from control_plane.executions.dispatcher import Dispatcher
from control_plane.executions.exclusive import OldCopies
from control_plane.executions.service import Executions, Launch
from control_plane.executions.sweeper import Sweeper
from control_plane.ledger.rpc import LedgerServicer
from control_plane.ledger.service import Ledger
from control_plane.migrations.upgrade import upgrade
from control_plane.movement.activities import MovementSteps
from control_plane.movement.steps import Batch, Failover, Move
from control_plane.registry.bundles import Bundles
from control_plane.registry.graphs import Graphs
from control_plane.registry.service import Key, Registry
from control_plane.routing.port import Registration
from control_plane.routing.rpc import GrpcRouter
from control_plane.traces.spans import Spans
from router.assignments import Assignments
from router.gateway.rpc import Gateway
from router.inventory import Inventory
from router.ledger import Ledger as Upstream
from router.lookout import Lookout
from router.rpc import RouterService
from router.sessions import Sessions, Terms
from tests.control_plane.world import BUNDLE, CODE, chain, pieces
from tests.simulation.etcd import SimulatedEtcd
from tests.simulation.loop import Connections, wall
from tests.simulation.network import Channel, Link, Server
from tests.simulation.region import Agent, Compute, Span

TTL, HEARTBEAT = 2, 0.4
CLAIM_SECONDS = 8.0


class Told:
    """`Movement` without Temporal: the steps of a story in a task, tried until they work."""

    def __init__(self) -> None:
        self.steps: MovementSteps | None = None
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def lost(self, cluster: str, cluster_epoch: int, *, since_ns: int) -> None:
        story = Failover(cluster, cluster_epoch, since_ns)
        self._begin(f"failover/{cluster}/{cluster_epoch}", self._failover(story))

    async def move(self, execution: str, epoch: int, *, cause: str) -> None:
        self._begin(f"move/{execution}/{epoch}", self._move(Move(execution, epoch, cause)))

    async def resume(self, execution: str, number: int, *, epoch: int, cause: str) -> None:
        await self.move(execution, epoch, cause=cause)

    def _begin(self, name: str, story) -> None:  # type: ignore[no-untyped-def]
        if name in self.tasks:
            story.close()
        else:
            self.tasks[name] = asyncio.create_task(story, name=name)

    async def _failover(self, story: Failover) -> None:
        assert self.steps is not None
        batch = Batch(story.cluster, story.cluster_epoch, limit=10)
        while True:
            with contextlib.suppress(WhimbrelError):
                taken = await self.steps.take_over_batch(batch)
                if not taken.taken and not taken.left:
                    return
            await asyncio.sleep(0.2)

    async def _move(self, story: Move) -> None:
        assert self.steps is not None
        while True:
            with contextlib.suppress(WhimbrelError):
                if (await self.steps.release(story)).ours:
                    await self.steps.place(story)
                return
            await asyncio.sleep(0.2)


class World:
    def __init__(self, folder: Path, seed: int, clusters: tuple[str, ...]) -> None:
        self.folder = folder
        self.chance = random.Random(seed)
        self.clusters = clusters
        self.etcd = SimulatedEtcd()
        self.ran: list[Span] = []
        self.links = {name: Link(self.chance) for name in ("centre", *clusters)}
        self.computes = {name: Compute(name, self.chance, self.ran) for name in clusters}
        self.agents: dict[str, Agent | None] = dict.fromkeys(clusters)
        self.lives = 0
        self.control_plane: Server | None = None
        self.router: Server | None = None
        self._centre: list[asyncio.Task[None]] = []
        self._routing: list[asyncio.Task[None]] = []
        self.file = folder / "control-plane.db"

    async def start(self) -> None:
        self._leases = asyncio.create_task(self.etcd.run())
        await self.start_control_plane()
        await self.registry.put_bundle(pieces(BUNDLE, CODE))
        for name in self.clusters:
            await self.registered.register(Registration(name, f"r-{name}"))
        await self.registry.register("p", "d", "v1", [chain("a", "b", "c")])
        self.start_router()
        for name in self.clusters:
            self.start_agent(name)

    # -- the control plane ------------------------------------------------------------------------

    async def start_control_plane(self) -> None:
        self.connections = Connections(str(self.file))
        self.database = Database(f"sqlite+aiosqlite:///{self.file}", connect=self.connections)
        await upgrade(self.database)
        router = GrpcRouter(Channel(self.links["centre"], lambda: self.router))  # type: ignore[arg-type]
        graphs, changes, spans, told = Graphs(), Changes(), Spans(), Told()
        self.told = told
        steady = asyncio.get_running_loop().time
        old_copies = OldCopies(self.database, router, clock=steady)
        dispatch = Dispatch(self.database, router, spans, clock=wall, old_copies=old_copies)
        dispatcher = Dispatcher(dispatch, changes)
        delivery = Delivery(self.database, router, dispatcher=dispatcher, changes=changes)
        told.steps = MovementSteps(self.database, router=router, dispatch=dispatch, graphs=graphs)
        self.registry = Registry(self.database, Bundles((self.folder / "bundles").as_uri()))
        self.registered = Clusters(self.database, router)
        self.executions = Executions(
            self.database, router, graphs=graphs, dispatcher=dispatcher, delivery=delivery,
            changes=changes, spans=spans,
        )  # fmt: skip
        ledger = Ledger(
            self.database, clusters=self.registered, registry=self.registry, graphs=graphs,
            movement=told, delivery=delivery, changes=changes, spans=spans,
        )  # fmt: skip
        sweeper = Sweeper(
            self.database, router, dispatch=dispatch, dispatcher=dispatcher, delivery=delivery,
            movement=told, changes=changes, claim_timeout_seconds=CLAIM_SECONDS, clock=wall,
        )  # fmt: skip
        self.control_plane = Server()
        ledger_pb2_grpc.add_LedgerServicer_to_server(LedgerServicer(ledger), self.control_plane)  # type: ignore[arg-type]
        loops = (dispatcher.run(), delivery.run(), sweeper.run(), self.registered.keep_synced())
        self._centre = [asyncio.create_task(one) for one in loops]

    async def kill_control_plane(self) -> None:
        assert self.control_plane is not None
        await self.control_plane.crash()
        await _end([*self._centre, *self.told.tasks.values()])
        await self.database.close()
        self.connections.end()
        self.control_plane = None

    # -- the router -------------------------------------------------------------------------------

    def start_router(self) -> None:
        clock = asyncio.get_running_loop().time
        upstream = Upstream(Channel(self.links["centre"], lambda: self.control_plane), timeout=2)  # type: ignore[arg-type]
        inventory = Inventory()
        etcd = self.etcd
        terms = Terms(TTL, HEARTBEAT, 60.0, "router")
        sessions = Sessions(etcd, inventory, upstream, terms=terms, clock=clock)  # type: ignore[arg-type]
        lookout = Lookout(etcd, inventory, upstream, ttl=TTL, clock=clock)  # type: ignore[arg-type]
        assignments = Assignments(etcd, inventory)  # type: ignore[arg-type]
        self.router = Server()
        RouterService(inventory, assignments, sessions, lookout, ttl=TTL).register(self.router)  # type: ignore[arg-type]
        Gateway(sessions, upstream).register(self.router)  # type: ignore[arg-type]
        loops = (
            inventory.run(etcd), lookout.watch_etcd(), lookout.watch_control_plane(),  # type: ignore[arg-type]
            lookout.judge(), lookout.report(), sessions.write_capacities(),
            sessions.settle_doubts(),
        )  # fmt: skip
        self._routing = [asyncio.create_task(one) for one in loops]

    async def kill_router(self) -> None:
        assert self.router is not None
        await self.router.crash()
        self.router = None
        await _end(self._routing)

    # -- agents -----------------------------------------------------------------------------------

    def start_agent(self, cluster: str) -> None:
        self.lives += 1
        folder = self.folder / cluster
        folder.mkdir(exist_ok=True)

        def dial() -> Channel:
            return Channel(self.links[cluster], lambda: self.router)

        self.agents[cluster] = Agent(self.computes[cluster], folder, dial, life=self.lives)

    async def kill_agent(self, cluster: str) -> None:
        agent, self.agents[cluster] = self.agents[cluster], None
        if agent is not None:
            await agent.die()

    # -- what happens, and what has happened ------------------------------------------------------

    async def launch(self, name: str, mode: Mode) -> None:
        key = Key("p", "d", "flows.chain", "v1")
        policy = PlacementPolicy(mode=mode)
        await self.executions.launch(Launch("p", "d", name, key, policy=policy))

    def overlaps(self, execution: str) -> list[tuple[Span, Span]]:
        """Attempts of one node whose user code ran at the same time."""
        spans = [one for one in self.ran if one.key.execution == execution]
        return [
            (one, other)
            for one, other in itertools.combinations(spans, 2)
            if one.key.node == other.key.node
            and max(one.began, other.began) < min(one.ended, other.ended)
        ]

    def rows(self, sql: str) -> list[sqlite3.Row]:
        with contextlib.closing(sqlite3.connect(f"file:{self.file}?mode=ro", uri=True)) as found:
            found.row_factory = sqlite3.Row
            return found.execute(sql).fetchall()

    async def until_ended(self, *, seconds: float) -> None:
        end = asyncio.get_running_loop().time() + seconds
        while open_runs := self.rows(
            "SELECT id, phase, reason FROM execution"
            " WHERE phase NOT IN ('SUCCEEDED', 'FAILED', 'ABORTED')"
        ):
            for agent in self.agents.values():
                if agent is not None:
                    agent.look()
            now = asyncio.get_running_loop().time()
            assert now < end, f"never ended: {[tuple(row) for row in open_runs]}"
            await asyncio.sleep(0.5)

    async def stop(self) -> None:
        for name in self.clusters:
            await self.kill_agent(name)
        for compute in self.computes.values():
            await compute.lose()
        if self.router is not None:
            await self.kill_router()
        if self.control_plane is not None:
            await self.kill_control_plane()
        await _end([self._leases])


async def _end(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
