"""Runs that wait: one reason each, looked at every second, in their turn, however many they are."""

from dataclasses import replace

import pytest
from whimbrel.spec import Mode, Phase, PlacementPolicy

from control_plane.executions.codec import view_to_wire
from control_plane.executions.waiting import EVERY_SECONDS, FRESH_SECONDS
from control_plane.routing.port import Decision, Requirement
from tests.control_plane.world import FakeRouter, World, chain

pytestmark = pytest.mark.anyio


def room_for(router: FakeRouter, runs: int) -> None:
    """From now on so many more find a place, the first that are asked about."""
    place, left = router.place, [runs]

    async def decide(requirements: list[Requirement]) -> list[Decision]:
        decided: list[Decision] = []
        for item in await place(requirements):
            taken = left[0] > 0 and bool(item.cluster)
            left[0] -= taken
            full = replace(item, cluster="", region="", reason="no_capacity")
            decided.append(item if taken else full)
        return decided

    router.place = decide


async def many(world: World, count: int, **policy: float) -> list[str]:
    """Waiting runs, oldest first."""
    wanted = PlacementPolicy(mode=Mode.IDEMPOTENT, **policy)
    runs = [await world.launch(chain("a"), f"run{index}", policy=wanted) for index in range(count)]
    await world.dispatcher.drain()
    return runs


async def placed(world: World, runs: list[str]) -> list[str]:
    return [run for run in runs if (await world.view(run)).phase is Phase.ASSIGNED]


async def test_a_waiting_run_says_why_and_when_it_is_looked_at(world: World) -> None:
    [run] = await many(world, 1)
    message = view_to_wire(await world.view(run))
    assert message.reason == "no_cluster_alive"
    world.later(0)
    assert world.now - 1e9 < message.next_look_ns <= world.now + 2e9
    await world.join("east")
    await world.dispatch([run])
    assert view_to_wire(await world.view(run)).next_look_ns == 0


async def test_it_starts_at_the_first_look_after_there_is_room(world: World) -> None:
    [run] = await many(world, 1)
    world.later(FRESH_SECONDS)
    await world.sweeper.waiting.look()
    assert await placed(world, [run]) == []
    await world.join("east")
    assert world.sweeper.waiting.pause() == EVERY_SECONDS
    await world.sweeper.waiting.look()
    assert await placed(world, [run]) == [run]


async def test_who_asks_for_the_same_is_not_asked_about_in_vain(world: World) -> None:
    world.sweeper.waiting.batch = 2
    runs = await many(world, 7)
    other = await of_another_shape(world)
    await world.join("east")
    world.later(FRESH_SECONDS)
    room_for(world.router, 3)
    before = world.router.placements
    await world.sweeper.waiting.look()
    assert world.router.placements - before == 5, "four of the seven, and one of another shape"
    assert await placed(world, runs) == runs[:3], "the oldest first"
    assert {(await world.view(run)).reason for run in [*runs[3:], other]} == {"no_capacity"}


async def test_what_has_priority_is_placed_before_what_is_older(world: World) -> None:
    low, plain, high = [
        await world.launch(chain("a"), name, policy=PlacementPolicy(priority=priority))
        for name, priority in (("a-low", -1), ("b-plain", 0), ("c-high", 7))
    ]
    await world.dispatcher.drain()
    await world.join("east")
    world.later(FRESH_SECONDS)
    room_for(world.router, 2)
    await world.sweeper.waiting.look()
    assert await placed(world, [low, plain, high]) == [plain, high]


async def of_another_shape(world: World) -> str:
    policy = PlacementPolicy(mode=Mode.IDEMPOTENT, max_wait_seconds=600)
    run = await world.launch(chain("a"), "other", policy=policy)
    await world.dispatcher.drain()
    return run


async def test_all_that_there_is_room_for_are_placed_in_one_look(world: World) -> None:
    world.sweeper.waiting.batch = 2
    runs = await many(world, 7)
    await world.join("east")
    world.later(FRESH_SECONDS)
    await world.sweeper.waiting.look()
    assert await placed(world, runs) == runs


async def test_a_run_that_waits_for_its_old_copy_holds_up_nobody(world: World) -> None:
    world.sweeper.waiting.batch = 1
    await world.join("east")
    policy = PlacementPolicy(mode=Mode.EXCLUSIVE)
    first = await world.launch(chain("a"), "first", policy=policy)
    await world.dispatcher.drain()
    async with world.database.write() as connection:
        await connection.exec_driver_sql("UPDATE execution_fence SET epoch = 2, owner_cluster = ''")
        await connection.exec_driver_sql("UPDATE execution SET phase = 'WAITING'")
    second = await world.launch(chain("a"), "second", policy=policy)
    world.dispatcher._queue.clear()
    world.later(FRESH_SECONDS)
    await world.sweeper.waiting.look()
    assert (await world.view(first)).reason == "exclusive_wait"
    assert await placed(world, [second]) == [second]
    assert world.sweeper.waiting.pause() == EVERY_SECONDS
    world.clock = 2.9
    assert world.sweeper.waiting.pause() == pytest.approx(0.12)
