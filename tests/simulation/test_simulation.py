"""Seeded histories of agents, router and ledger together, hours of them in seconds."""

import asyncio
import contextlib
import random
import sqlite3
from pathlib import Path

import pytest
from sqlalchemy.exc import DBAPIError
from whimbrel.errors import WhimbrelError
from whimbrel.spec import Mode

from tests.e2e.checker import check
from tests.simulation.faults import inject, schedule
from tests.simulation.loop import simulate
from tests.simulation.world import World

CLUSTERS = ("east", "west", "south")
RUNS, FAULTS = 9, 8
SEEDS = range(6)


async def history(folder: Path, seed: int) -> list[tuple[object, ...]]:
    """Runs under faults until all have ended; answers what the ledger has of them."""
    chance = random.Random(seed)
    world = World(folder, seed, CLUSTERS)
    await world.start()

    async def launches() -> None:
        for index in range(RUNS):
            await asyncio.sleep(chance.uniform(0.1, 2.0))
            mode = Mode.EXCLUSIVE if index % 2 else Mode.IDEMPOTENT
            while True:
                # It may be away, or die with the call: a user would try again.
                with contextlib.suppress(WhimbrelError, DBAPIError):
                    await world.launch(f"run-{index}", mode)
                    break
                await asyncio.sleep(1.0)

    async def faults() -> None:
        for fault in schedule(chance, CLUSTERS, count=FAULTS):
            await asyncio.sleep(chance.uniform(0.1, 3.0))
            await inject(world, fault)

    await asyncio.gather(launches(), faults())
    await world.until_ended(seconds=300)
    rows = world.rows(
        "SELECT execution, node, epoch, cluster, attempt, output_digest FROM node_output"
        " ORDER BY execution, id"
    )
    assert {row["phase"] for row in world.rows("SELECT phase FROM execution")} == {"SUCCEEDED"}
    assert len({(row["execution"], row["node"]) for row in rows}) == 3 * RUNS
    for index in range(1, RUNS, 2):
        assert world.overlaps(f"p/d/run-{index}") == [], "two copies of exclusive work"
    with contextlib.closing(sqlite3.connect(world.file)) as database:
        database.row_factory = sqlite3.Row
        check(database)
    await world.stop()
    return [tuple(row) for row in rows]


def test_the_same_seed_is_the_same_history(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    other.mkdir()
    assert simulate(77, history(one, 77)) == simulate(77, history(other, 77))


@pytest.mark.parametrize("seed", SEEDS)
def test_every_run_arrives_once_whatever_happens(tmp_path: Path, seed: int) -> None:
    simulate(seed, history(tmp_path, seed))
