"""A planned move's steps and doors on the rows of `world.py`, with stories that are only noted."""

from typing import Any

from sqlalchemy import update
from whimbrel.errors import Refused

from control_plane.clusters.service import Clusters
from control_plane.ledger.fence import FENCE, locked, relinquished, store
from control_plane.movement.client import TemporalMovement
from control_plane.movement.migrating import Leaving
from control_plane.movement.planned import Migrate, Wait
from control_plane.movement.service import Moves
from control_plane.movement.settling import Settling
from control_plane.movement.store import Migration
from control_plane.registry.graphs import Graphs
from control_plane.routing.port import LiveCluster
from tests.control_plane.movement.world import World


class Told:
    """Stories that remember what was asked of them, and hand it to `real` ones. `over`: they have
    ended; `off`: there is no Temporal."""

    def __init__(self) -> None:
        self.real: TemporalMovement | None = None
        self.started: list[tuple[str, int]] = []
        self.off = False
        self.over = False

    def check(self) -> None:
        if self.off:
            raise Refused("nothing can be moved")

    async def migrate(self, execution: str, number: int, *, cause: str) -> bool:
        self.started.append((execution, number))
        if self.real:
            return await self.real.migrate(execution, number, cause=cause)
        return not self.over

    async def drain(self, cluster: str, number: int) -> bool:
        self.started.append((cluster, number))
        if self.real:
            return await self.real.drain(cluster, number)
        return not self.over


class Planned:
    def __init__(self, world: World) -> None:
        self.world = world
        world.router.clusters[0] = LiveCluster("us-east", "us-east", cluster_epoch=3)
        router: Any = world.router
        self.told = Told()
        self.copies: list[tuple[str, str, str]] = []
        graphs = Graphs()
        self.moves = Moves(
            world.database, router, graphs=graphs, clusters=Clusters(world.database, router),
            stories=self.told,
        )  # fmt: skip
        self.leaving = Leaving(world.database, router, graphs=graphs, copy=self.copy)
        self.settling = Settling(
            world.database, dispatch=world.steps.dispatch, graphs=graphs,
            copied=self.leaving.copied,
        )  # fmt: skip

    async def copy(self, execution: str, /, *, cluster: str, region: str) -> None:
        self.copies.append((execution, cluster, region))

    async def begin(self, run: str, *, to: str = "eu-west") -> Migrate:
        view = await self.moves.migrate(run, to=to)
        return Migrate(run, view.number, quiesce_seconds=0.2, claim_seconds=0.2)

    async def row(self) -> dict[str, Any]:
        return (await self.world.rows(Migration))[-1]

    async def let_go(self, run: str) -> None:
        async with self.world.database.write() as connection:
            row = (await locked(connection, [run]))[run]
            await store(connection, [relinquished(row)])

    async def claim(self, run: str) -> None:
        async with self.world.database.write() as connection:
            await connection.execute(
                update(FENCE).where(FENCE.c.execution == run).values(owner_cluster_epoch=1)
            )

    async def gone(self, run: str) -> tuple[str, Migrate]:
        """A run whose source has let go."""
        story = await self.begin(run)
        assert (await self.leaving.prepare(story)).state == "go"
        assert (await self.leaving.quiesce(story)).state == "go"
        await self.let_go(run)
        assert (await self.leaving.released(Wait(story, 1.0))).state == "released"
        return run, story
