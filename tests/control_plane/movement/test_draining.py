"""A drain's looks: nothing new comes, what nobody takes is asked again, what stays is listed."""

from collections import Counter

import pytest
from sqlalchemy import update
from whimbrel.errors import InvalidInput, NotFound
from whimbrel.spec import Mode, PlacementPolicy

from control_plane import documents
from control_plane.clusters.store import Cluster
from control_plane.database import table
from control_plane.executions.store import Execution
from control_plane.ledger.fence import FENCE
from control_plane.movement.draining import AGAIN_SECONDS, TRIES, Draining
from control_plane.movement.journal import MIGRATION
from control_plane.movement.planned import Empty, End, Migrate
from control_plane.movement.store import Drain, Migration
from tests.control_plane.movement.planned import Planned

pytestmark = pytest.mark.anyio

DRAIN = Empty("us-east", 1, at_once=2)


@pytest.fixture
def draining(planned: Planned) -> Draining:
    return Draining(planned.world.database, planned.moves)


async def time_passes(planned: Planned) -> None:
    """Since every migration that has ended."""
    async with planned.world.database.write() as connection:
        past = MIGRATION.c.ended_ns - int(AGAIN_SECONDS * 1e9)
        ended = MIGRATION.c.ended_ns > 0
        await connection.execute(update(MIGRATION).where(ended).values(ended_ns=past))


async def arrives(planned: Planned, run: str, *, number: int = 1, phase: str = "resumed") -> None:
    async with planned.world.database.write() as connection:
        await connection.execute(
            update(FENCE)
            .where(FENCE.c.execution == run)
            .values(epoch=2, owner_cluster="eu-west", owner_cluster_epoch=1)
        )
    await planned.settling.end(End(Migrate(run, number), phase))


async def test_runs_leave_a_few_at_a_time(planned: Planned, draining: Draining) -> None:
    runs = [await planned.world.run(f"run-{i}") for i in range(3)]
    [view] = await planned.moves.drain(cluster="us-east")
    assert (view.number, view.phase) == (1, "RUNNING")
    assert planned.told.started == [("us-east", 1)]
    assert "us-east" in planned.world.router.closed
    for _ in range(2):
        assert (await draining.look(DRAIN)).phase == "RUNNING"
    assert [run for run, _ in planned.told.started[1:]] == runs[:2]
    await arrives(planned, runs[0])
    await draining.look(DRAIN)
    assert planned.told.started[-1] == (runs[2], 1)
    await arrives(planned, runs[1])
    await arrives(planned, runs[2], phase="ENDED")
    look = await draining.look(DRAIN)
    assert (look.phase, look.moved, look.ended, look.staying) == ("DONE", 2, 1, 0)
    view = await planned.moves.drained("us-east")
    assert view is not None
    assert (view.total, view.phase, len(view.migrations), view.ended_ns > 0) == (3, "DONE", 3, True)


async def test_what_has_priority_leaves_first(planned: Planned, draining: Draining) -> None:
    for name, priority in (("a-low", -1), ("b-plain", 0), ("c-high", 7)):
        await planned.world.run(name, priority=priority)
    await planned.moves.drain(cluster="us-east")
    await draining.look(DRAIN)
    assert [run for run, _ in planned.told.started[1:]] == ["p/d/c-high", "p/d/b-plain"]


async def test_the_same_again_is_the_same_drain(planned: Planned) -> None:
    await planned.world.run("run")
    for _ in range(2):
        [view] = await planned.moves.drain(cluster="us-east")
        assert view.number == 1
    assert len(await planned.world.rows(Drain)) == 1


async def test_what_stays_is_listed_with_its_reason(planned: Planned, draining: Draining) -> None:
    pinned = await planned.world.run("a-pinned")
    async with planned.world.database.write() as connection:
        await connection.execute(
            update(table(Execution)).values(
                policy=documents.text(PlacementPolicy(mode=Mode.PINNED)), mode="pinned"
            )
        )
    await planned.world.run("b-stays", failover=False)
    await planned.world.run("c-nobody")
    planned.world.router.full = True
    [plan] = await planned.moves.drain(cluster="us-east", dry_run=True)
    assert [move.reason for move in plan.migrations] == ["pinned", "failover_off", "no_capacity"]
    assert (plan.total, plan.staying) == (3, 3)
    await planned.moves.drain(cluster="us-east")
    for _ in range(TRIES):
        for _ in range(3):  # asked is asked: not again at once
            look = await draining.look(DRAIN)
        await time_passes(planned)
    look = await draining.look(DRAIN)
    assert (look.phase, look.moved, look.staying) == ("DONE", 0, 3)
    asked = Counter(row["reason"] for row in await planned.world.rows(Migration))
    assert asked == {"pinned": 1, "failover_off": 1, "no_capacity": TRIES}
    view = await planned.moves.drained("us-east")
    assert view is not None
    assert (view.total, [move.reason for move in view.migrations]) == (
        3, ["no_capacity", "failover_off", "pinned"],
    )  # fmt: skip
    assert await planned.world.fence(pinned) == (1, "us-east")


async def test_what_nobody_took_is_asked_again_once_there_may_be_room(
    planned: Planned, draining: Draining
) -> None:
    run = await planned.world.run("run")
    planned.world.router.full = True
    await planned.moves.drain(cluster="us-east")
    assert (await draining.look(DRAIN)).staying == 1
    planned.world.router.full = False
    assert (await draining.look(DRAIN)).phase == "RUNNING"
    assert planned.told.started == [("us-east", 1)]
    await time_passes(planned)
    await draining.look(DRAIN)
    assert planned.told.started[-1] == (run, 2)
    await arrives(planned, run, number=2)
    look = await draining.look(DRAIN)
    assert (look.phase, look.moved, look.staying) == ("DONE", 1, 0)


async def test_uncordoned_it_is_cancelled(planned: Planned, draining: Draining) -> None:
    await planned.world.run("run")
    await planned.moves.drain(cluster="us-east")
    async with planned.world.database.write() as connection:
        await connection.execute(update(table(Cluster)).values(scheduling="active"))
    assert (await draining.look(DRAIN)).phase == "CANCELLED"
    assert await planned.world.rows(Migration) == []


async def test_what_a_person_moves_already_is_left_to_that_move(
    planned: Planned, draining: Draining
) -> None:
    run = await planned.world.run("run")
    await planned.begin(run)
    await planned.moves.drain(cluster="us-east")
    assert (await draining.look(DRAIN)).phase == "RUNNING"
    assert len(await planned.world.rows(Migration)) == 1
    await arrives(planned, run)
    assert (await draining.look(DRAIN)).phase == "DONE"


async def test_a_region_is_each_of_its_clusters(planned: Planned) -> None:
    await planned.world.add(Cluster, name="us-east-2", region="us-east", registered_ns=1)
    await planned.world.run("run")
    plans = await planned.moves.drain(region="us-east", dry_run=True)
    assert [(plan.cluster, plan.number, plan.total) for plan in plans] == [
        ("us-east", 0, 1), ("us-east-2", 0, 0),
    ]  # fmt: skip
    assert [move.to_cluster for move in plans[0].migrations] == ["eu-west"]
    assert planned.world.router.closed == set()
    assert await planned.world.rows(Drain) == []
    views = await planned.moves.drain(region="us-east")
    assert [view.cluster for view in views] == ["us-east", "us-east-2"]
    assert planned.world.router.closed == {"us-east", "us-east-2"}


async def test_a_drain_names_one_thing_that_is_there(planned: Planned) -> None:
    for named, error in (
        ({}, InvalidInput), ({"cluster": "us-east", "region": "us-east"}, InvalidInput),
        ({"cluster": "none"}, NotFound), ({"region": "none"}, NotFound),
    ):  # fmt: skip
        with pytest.raises(error) as raised:
            await planned.moves.drain(**named)
        assert raised.value.remedy
