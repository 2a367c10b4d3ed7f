"""The sweeper: what a crash or a loss left is taken up from the rows alone; time is a number."""

import pytest
from whimbrel.spec import Mode, Phase, PlacementPolicy

from control_plane.ledger.events import Released, Succeeded
from control_plane.ledger.fence import FenceWish, fence
from tests.control_plane.world import World, chain, output

pytestmark = pytest.mark.anyio


async def sweep(world: World, seconds: float) -> None:
    world.later(seconds)
    await world.sweeper.sweep()
    await world.sweeper.waiting.look()
    await world.dispatcher.drain()
    await world.delivery.deliver()


async def test_a_queued_run_whose_launch_was_forgotten(world: World) -> None:
    await world.join("east")
    run = await world.launch()
    world.dispatcher._queue.clear()  # the process that launched it died
    await sweep(world, 2)
    assert (await world.view(run)).phase is Phase.ASSIGNED


async def test_a_waiting_run_goes_when_there_is_room(world: World) -> None:
    run = await world.placed()
    await world.join("east")
    await sweep(world, 2)
    assert (await world.view(run)).phase is Phase.ASSIGNED


async def test_unclaimed_in_time_is_placed_elsewhere(world: World) -> None:
    await world.join("east", "west")
    run = await world.placed()
    await sweep(world, 5)
    assert (await world.view(run)).epoch == 1
    await sweep(world, 16)
    view = await world.view(run)
    assert (view.epoch, view.cluster, view.placements[-1].cause) == (2, "west", "fallback")
    assert world.router.keys[run].epoch == 2
    assert not (await world.claim(run, 1, "east", 1)).answer.claimed


async def test_unclaimed_with_no_other_place_stays_and_is_assigned_again(world: World) -> None:
    await world.join("east")
    run = await world.placed()
    world.router.keys.clear()
    await sweep(world, 16)
    assert world.router.keys[run].epoch == 1
    assert (await world.claim(run, 1, "east", 1)).answer.claimed


async def test_released_work_finds_another_owner(world: World) -> None:
    await world.join("east")
    run = await world.running()
    await world.send(run, Released())
    await world.delivery.deliver()
    await world.dispatcher.drain()
    view = await world.view(run)
    assert (view.phase, view.epoch) == (Phase.ASSIGNED, 2)


async def test_keys_of_ended_runs_go_although_the_router_was_away(world: World) -> None:
    await world.join("east")
    run = await world.running(chain("a"))
    await world.send(run, output("a"), Succeeded("{}"))
    world.router.away = True
    with pytest.raises(Exception, match="away"):
        await world.delivery.deliver()
    world.router.away = False
    async with world.database.write() as connection:
        # The wake-up is only a hint: the row alone is enough.
        await connection.exec_driver_sql("DELETE FROM wakeup")
    await sweep(world, 2)
    assert world.router.keys == {}


async def test_lost_keys_are_written_again(world: World) -> None:
    await world.join("east")
    run = await world.running()
    world.router.keys.clear()
    await world.sweeper.compare_keys()
    assert world.router.keys[run].epoch == 1


async def test_a_suspected_owner_is_reported_to_movement(world: World) -> None:
    await world.join("east", "west")
    await world.running()
    world.router.suspected = {"west": 1}
    await sweep(world, 1)
    assert world.movement.losses == []
    world.router.suspected = {"east": 4, "west": 1}
    await sweep(world, 1)
    assert world.movement.losses == [("east", 4)]


async def test_a_router_that_never_saw_the_lost_session_still_has_it_moved(world: World) -> None:
    """It began after the session's key had gone, and so can't name it."""
    await world.join("east", "west")
    await world.running()
    world.router.suspected = {"east": 0}
    await sweep(world, 1)
    assert world.movement.losses == [("east", 1)]


async def test_a_move_without_a_story_gets_one(world: World) -> None:
    await world.join("east")
    run = await world.running()
    async with world.database.write() as connection:
        await fence(connection, [FenceWish(run, 2, "", "east", 1, "story")])
    await sweep(world, 2)
    assert world.movement.moves == []
    await sweep(world, 11)
    assert world.movement.moves == [(run, 2)]


async def test_max_wait_ends_the_waiting(world: World) -> None:
    run = await world.launch(policy=PlacementPolicy(mode=Mode.IDEMPOTENT, max_wait_seconds=30))
    await sweep(world, 0)
    await sweep(world, 20)
    assert (await world.view(run)).phase is Phase.WAITING
    await sweep(world, 40)
    view = await world.view(run)
    assert (view.phase, view.epoch) == (Phase.FAILED, 1)
    assert view.error is not None
    assert "no_cluster_alive" in view.error.message
