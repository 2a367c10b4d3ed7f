"""The rows of one control plane, on SQLite and on PostgreSQL; a Temporal server a module."""

from collections.abc import Iterator

import pytest

from control_plane.clusters.store import Cluster
from control_plane.database import Database
from control_plane.registry.codec import spec_to_bytes
from control_plane.registry.store import Version
from tests.control_plane.movement.planned import Planned
from tests.control_plane.movement.temporal_server import TemporalServer, serving
from tests.control_plane.movement.world import CHAIN, World


@pytest.fixture
async def world(database: Database) -> World:
    world = World(database)
    await world.add(
        Version,
        project="p", domain="d", name="w", version="1", digest="chain",
        spec=spec_to_bytes(CHAIN), created_ns=1,
    )  # fmt: skip
    return world


@pytest.fixture
async def planned(world: World) -> Planned:
    for name in ("us-east", "eu-west", "ap-south"):
        await world.add(Cluster, name=name, region=name, registered_ns=1, scheduling="active")
    return Planned(world)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TemporalServer]:
    with serving(tmp_path_factory.mktemp("temporal")) as server:
        yield server
