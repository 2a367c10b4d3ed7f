"""Pinned runs: once claimed, no other cluster gets them unless somebody says so."""

import pytest
from whimbrel.spec import Mode, Phase, PlacementPolicy

from control_plane.ledger.events import Released, Unreachable
from tests.control_plane.test_sweeper import sweep
from tests.control_plane.world import World, chain, output

pytestmark = pytest.mark.anyio


async def pinned(world: World) -> str:
    """Assigned to east."""
    policy = PlacementPolicy(mode=Mode.PINNED)
    run = await world.launch(chain("a", "b"), policy=policy)
    await world.dispatcher.drain()
    return run


async def claimed(world: World) -> str:
    run = await pinned(world)
    assert (await world.claim(run, 1, "east", 1)).answer.claimed
    return run


async def test_as_long_as_nobody_claimed_it_any_cluster_will_do(world: World) -> None:
    await world.join("east", "west")
    run = await pinned(world)
    await sweep(world, 16)
    assert (await world.view(run)).cluster == "west"


async def test_want_of_room_does_not_send_it_elsewhere(world: World) -> None:
    await world.join("east", "west")
    run = await claimed(world)
    await world.send(run, Released("unschedulable", "full"))
    await world.delivery.deliver()
    await world.dispatcher.drain()
    view = await world.view(run)
    assert (view.phase, view.reason) == (Phase.WAITING, "pinned")
    await sweep(world, 6)
    view = await world.view(run)
    assert (view.phase, view.cluster, view.epoch) == (Phase.ASSIGNED, "east", 2)


async def test_an_input_it_can_not_read_does_not_either(world: World) -> None:
    await world.join("east", "west")
    run = await claimed(world)
    await world.send(run, output("a", uri="s3://r-x/a"))
    await world.send(run, Unreachable("b", ("s3://r-x/a",)))
    world.router.up = ["west"]
    await world.delivery.deliver()
    await world.dispatcher.drain()
    view = await world.view(run)
    assert (view.phase, view.reason) == (Phase.WAITING, "pinned")
    world.router.up = ["west", "east"]
    await sweep(world, 2)
    assert (await world.view(run)).cluster == "east"


async def test_its_own_cluster_is_slow_to_claim_it_again(world: World) -> None:
    await world.join("east", "west")
    run = await claimed(world)
    await world.send(run, Released())
    await world.delivery.deliver()
    await world.dispatcher.drain()
    await sweep(world, 16)
    view = await world.view(run)
    assert (view.cluster, view.epoch) == ("east", 2)
    assert (await world.claim(run, 2, "east", 1)).answer.claimed


async def test_a_story_may_move_it_and_then_it_is_pinned_there(world: World) -> None:
    await world.join("east", "west")
    run = await claimed(world)
    await world.send(run, Released())
    [went] = await world.dispatch([run], only={run: ["west"]}, moving=True, cause="migration")
    assert went.cluster == "west"
    assert (await world.claim(run, 2, "west", 1)).answer.claimed
    await world.send(run, Released(), epoch=2, cluster="west")
    [back] = await world.dispatch([run])
    assert back.cluster == "west"
