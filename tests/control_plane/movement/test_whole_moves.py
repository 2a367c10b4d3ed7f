"""Whole planned moves and drains: a real Temporal, the real steps on SQLite, agents that obey.

Every step is done twice, as after a crash between its work and its answer.
"""

import asyncio
import contextlib
import functools
from collections.abc import AsyncGenerator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from control_plane.database import table
from control_plane.executions.store import Execution
from control_plane.ledger.fence import FENCE, claim, read, relinquished, store
from control_plane.ledger.rows import insert_into
from control_plane.ledger.store import ExecutionFence, NodeState
from control_plane.movement.draining import Draining
from control_plane.movement.planned import Drained, Migrated, PlannedSteps
from control_plane.movement.service import Moves
from control_plane.movement.steps import Batch
from control_plane.movement.store import Migration
from tests.control_plane.movement.planned import Planned
from tests.control_plane.movement.telling import Remembered, movement, told
from tests.control_plane.movement.temporal_server import TemporalServer, serving

pytestmark = pytest.mark.anyio

STATE = table(NodeState)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[TemporalServer]:
    """One a test: on every database the same stories have the same ids."""
    with serving(tmp_path) as server:
        yield server


class Agents:
    """Each alive one claims what it is given, runs node `b`, and lets go when asked to."""

    def __init__(self, planned: Planned) -> None:
        self.database = planned.world.database
        self.idle: set[str] = set()
        self.mute: set[str] = set()

    async def run(self) -> None:
        while True:
            async with self.database.write() as connection:
                found = await connection.execute(select(FENCE).where(FENCE.c.owner_cluster != ""))
                for row in [read(item) for item in found.mappings()]:
                    if row.owner_cluster in self.mute:
                        continue
                    if row.owner_cluster_epoch == 0 and row.owner_cluster not in self.idle:
                        wish = [(row.execution, row.epoch)]
                        await claim(connection, wish, cluster=row.owner_cluster, cluster_epoch=1)
                        if row.want != "quiesce":
                            await self._works(connection, row.execution, row.epoch)
                    elif row.owner_cluster_epoch and row.want == "quiesce":
                        await store(connection, [relinquished(row)])
            await asyncio.sleep(0.02)

    async def _works(self, connection: Any, execution: str, epoch: int) -> None:
        values = {"execution": execution, "node": "b", "phase": "RUNNING", "epoch": epoch}
        values |= {"attempt": epoch, "cluster": "", "started_ns": 2**60 + epoch, "ended_ns": 0}
        values |= {"error": "", "user_failures": 0, "system_failures": 0, "failed_attempt": 0}
        values |= {"lineage": "", "stdout": "", "stderr": "", "host": "", "avoided": ""}
        await connection.execute(
            insert_into(connection)(STATE)
            .values(values)
            .on_conflict_do_update(index_elements=["execution", "node"], set_=values)
        )
        await connection.execute(
            update(table(Execution))
            .where(table(Execution).c.id == execution)
            .values(phase="RUNNING")
        )


class Twice:
    """Every step is done, and done again; the second answer counts."""

    def __init__(self, steps: object) -> None:
        self._steps = steps

    def __getattr__(self, name: str) -> Any:
        step = getattr(self._steps, name)

        @functools.wraps(step)
        async def twice(argument: Any) -> Any:
            await step(argument)
            return await step(argument)

        return twice


def twice(steps: object) -> Any:
    return Twice(steps)


@contextlib.asynccontextmanager
async def federation(
    server: TemporalServer, planned: Planned
) -> AsyncGenerator[tuple[Agents, Moves, Any]]:
    agents = Agents(planned)
    moves = planned.moves
    draining = Draining(planned.world.database, moves)
    steps = PlannedSteps(twice(planned.leaving), twice(planned.settling), twice(draining))
    async with movement(server, Remembered(), steps) as (stories, client):
        planned.told.real = stories
        acting = asyncio.create_task(agents.run())
        try:
            yield agents, moves, client
        finally:
            acting.cancel()
            await asyncio.gather(acting, return_exceptions=True)


async def arrived(client: Any, run: str, number: int) -> object:
    return await told(client, f"migrate/{run}/{number}", Migrated)


async def started(planned: Planned, name: str, owner: str = "us-east") -> str:
    return await planned.world.run(name, owner=owner, session=1)


async def test_from_one_to_the_next_and_on(server: TemporalServer, planned: Planned) -> None:
    run = await started(planned, "on")
    async with federation(server, planned) as (_, moves, client):
        for number, target in enumerate(("eu-west", "ap-south", "us-east"), start=1):
            await moves.migrate(run, to=target)
            assert await arrived(client, run, number) == Migrated("RESUMED", target)
            assert await planned.world.fence(run) == (number + 1, target)
    kinds = await planned.world.told(run)
    assert [kinds.count(kind) for kind in ("migrating", "quiesced", "moved")] == [3, 3, 3]
    rows = await planned.world.rows(Migration)
    assert [(row["phase"], row["resumed_ns"] > 0) for row in rows] == [("RESUMED", True)] * 3


async def test_a_mute_source_and_a_target_that_does_not_claim(
    server: TemporalServer, planned: Planned
) -> None:
    run = await started(planned, "mute")
    async with federation(server, planned) as (agents, moves, client):
        agents.idle = {"eu-west"}
        await moves.migrate(run, to="eu-west")
        assert await arrived(client, run, 1) == Migrated("FAILED", "us-east")
    [row] = await planned.world.rows(Migration)
    assert (row["reason"], row["why"]) == (
        "unclaimed", "eu-west did not claim it in time: it went to us-east",
    )  # fmt: skip
    assert await planned.world.fence(run) == (3, "us-east")


@pytest.mark.fault(39)
@pytest.mark.parametrize("phase", ["QUIESCE", "CHECKPOINT", "RELEASED"])
async def test_the_source_dies_meanwhile(
    server: TemporalServer, planned: Planned, phase: str
) -> None:
    """Before RELEASED the takeover has it; after it, nothing is there to be taken over."""
    run = await started(planned, f"dies-{phase.lower()}")
    async with federation(server, planned) as (agents, moves, client):
        if phase != "RELEASED":
            agents.mute = {"us-east"}
        await moves.migrate(run, to="eu-west")
        await until(planned, phase)
        lost = planned.world.router.clusters[0]
        planned.world.router.clusters[0] = replace(lost, alive=False, suspected=True)
        await planned.world.steps.take_over_batch(Batch("us-east", 1, limit=10))
        ended = await arrived(client, run, 1)
    assert isinstance(ended, Migrated)
    assert ended.phase == ("RESUMED" if phase == "RELEASED" else "TAKEN_OVER")
    assert (await planned.world.fence(run))[1] == "eu-west"


async def until(planned: Planned, phase: str) -> None:
    order = ["PREPARE", "QUIESCE", "CHECKPOINT", "RELEASED"]
    async with asyncio.timeout(20):
        while True:
            row = await planned.row()
            if row["phase"] not in order[: order.index(phase)]:
                return
            await asyncio.sleep(0.01)


async def test_a_cluster_is_emptied(server: TemporalServer, planned: Planned) -> None:
    runs = [await started(planned, f"one-of-{i}") for i in range(24)]
    async with federation(server, planned) as (_, moves, client):
        await moves.drain(cluster="us-east")
        look = await told(client, "drain/us-east/1", Drained)
    assert look == Drained("DONE", moved=24)
    owners = {row["execution"]: row["owner_cluster"] for row in await fences(planned)}
    assert owners == dict.fromkeys(runs, "eu-west")


async def fences(planned: Planned) -> list[dict[str, Any]]:
    return await planned.world.rows(ExecutionFence)
