"""Exclusive runs wait until their old copy must be dead, by the clock of whoever places them."""

import math

import pytest
from whimbrel.spec import Mode, Phase, PlacementPolicy

from control_plane.executions.dispatch import Dispatch
from control_plane.executions.exclusive import OldCopies
from control_plane.ledger.events import Released, Unreachable
from control_plane.ledger.fence import locked
from control_plane.movement.rows import to_nobody
from tests.control_plane.test_sweeper import sweep
from tests.control_plane.world import World, chain, output

pytestmark = pytest.mark.anyio

WAIT = 2.0 * 1.01 + 1.0
"""The router's TTL on a clock that is 1 % slow, and the margin."""


async def exclusive(world: World, name: str = "run") -> str:
    """Running on east."""
    policy = PlacementPolicy(mode=Mode.EXCLUSIVE)
    run = await world.launch(chain("a", "b"), name, policy=policy)
    await world.dispatcher.drain()
    assert (await world.claim(run, 1, "east", 1)).answer.claimed
    return run


async def take(world: World, run: str) -> None:
    """East is lost."""
    async with world.database.write() as connection:
        row = (await locked(connection, [run]))[run]
        assert await to_nobody(connection, [(row, Phase.RUNNING)], story="failover/east/1")


async def place(world: World, run: str, dispatch: Dispatch | None = None) -> str:
    [done] = await (dispatch or world.dispatch)([run], cause="failover", moving=True)
    return done.cluster or done.reason


async def test_the_next_owner_waits_for_the_last_ones_death(world: World) -> None:
    await world.join("east", "west")
    run = await exclusive(world)
    await take(world, run)
    assert await place(world, run) == "exclusive_wait"
    view = await world.view(run)
    assert (view.phase, view.reason, view.epoch) == (Phase.WAITING, "exclusive_wait", 2)
    assert view.next_look_ns > 0
    assert run not in world.router.keys, "its key would keep the old copy going"
    assert world.dispatch.old_copies.due_in() == pytest.approx(WAIT)
    world.clock = WAIT - 0.01
    assert await place(world, run) == "exclusive_wait"
    assert world.dispatch.old_copies.due_in() == pytest.approx(0.01)
    world.clock = WAIT
    assert world.dispatch.old_copies.due_in() == math.inf
    await sweep(world, 2)
    view = await world.view(run)
    assert (view.phase, view.epoch, view.placements[-1].cause) == (Phase.ASSIGNED, 3, "failover")


async def test_another_process_counts_for_itself(world: World) -> None:
    await world.join("east", "west")
    run = await exclusive(world)
    await take(world, run)
    assert await place(world, run) == "exclusive_wait"
    world.clock = WAIT * 10
    other = Dispatch(
        world.database, world.router,
        old_copies=OldCopies(world.database, world.router, clock=lambda: world.clock),
    )  # fmt: skip
    assert await place(world, run, other) == "exclusive_wait"
    assert await place(world, run) == "east"


async def test_every_loss_is_waited_for(world: World) -> None:
    await world.join("east", "west")
    run = await exclusive(world)
    await take(world, run)
    assert await place(world, run) == "exclusive_wait"
    world.clock = WAIT
    assert await place(world, run) == "east"
    await take(world, run)
    assert await place(world, run) == "exclusive_wait"


async def test_the_wait_begins_when_the_old_key_has_gone(world: World) -> None:
    await world.join("east", "west")
    run = await exclusive(world)
    await take(world, run)
    world.router.refuse_unassign = True
    assert await place(world, run) == "exclusive_wait"
    world.clock = WAIT * 10
    world.router.refuse_unassign = False
    assert await place(world, run) == "exclusive_wait"
    world.clock += WAIT + 0.01
    assert await place(world, run) == "east"


async def test_a_longer_ttl_of_before_counts(world: World) -> None:
    await world.join("east", "west")
    run = await exclusive(world)
    await take(world, run)
    world.router.ttl_ms = 10_000
    assert await place(world, run) == "exclusive_wait"
    world.router.ttl_ms = 2000
    world.clock = WAIT
    assert await place(world, run) == "exclusive_wait"


async def test_who_let_go_is_not_waited_for(world: World) -> None:
    await world.join("east", "west")
    released, unreadable = await exclusive(world, "released"), await exclusive(world, "unreadable")
    await world.send(released, Released())
    await world.send(unreadable, output("a", uri="s3://r-x/a"))
    await world.send(unreadable, Unreachable("b", ("s3://r-x/a",)))
    for run in (released, unreadable):
        assert await place(world, run) == "east"


async def test_a_run_that_was_never_claimed_is_not_waited_for(world: World) -> None:
    """No claim of the old epoch can succeed after the fence, not even one that is on its way."""
    await world.join("east", "west")
    run = await world.launch(chain("a"), policy=PlacementPolicy(mode=Mode.EXCLUSIVE))
    await world.dispatcher.drain()
    await sweep(world, 16)
    view = await world.view(run)
    assert (view.phase, view.epoch, view.cluster) == (Phase.ASSIGNED, 2, "west")
    assert not (await world.claim(run, 1, "east", 1)).answer.claimed


async def test_a_claim_that_was_quicker_keeps_the_run(world: World) -> None:
    await world.join("east", "west")
    run = await world.launch(chain("a"), policy=PlacementPolicy(mode=Mode.EXCLUSIVE))
    await world.dispatcher.drain()
    place = world.router.place

    async def claimed_meanwhile(requirements: object) -> object:
        assert (await world.claim(run, 1, "east", 1)).answer.claimed
        return await place(requirements)

    world.router.place = claimed_meanwhile
    await world.dispatch([run], again=True)
    view = await world.view(run)
    assert (view.epoch, view.cluster, view.phase) == (1, "east", Phase.RUNNING)


async def test_idempotent_work_does_not_wait(world: World) -> None:
    await world.join("east", "west")
    run = await world.running(chain("a"))
    await take(world, run)
    assert await place(world, run) == "east"
