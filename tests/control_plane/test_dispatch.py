"""Dispatch: place, fence, assign; safe to repeat, to interrupt, and to run twice at once."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest
from whimbrel.errors import Unreachable
from whimbrel.spec import Phase

from control_plane.database import Database
from control_plane.ledger.events import Output
from control_plane.migrations.upgrade import upgrade
from tests.control_plane.world import World, output

pytestmark = pytest.mark.anyio


async def test_a_launch_is_placed_fenced_and_assigned(world: World) -> None:
    await world.join("east", "west")
    run = await world.placed()
    view = await world.view(run)
    assert (view.phase, view.cluster, view.region, view.epoch) == (
        Phase.ASSIGNED, "east", "r-east", 1,
    )  # fmt: skip
    [placement] = view.placements
    assert (placement.epoch, placement.cause) == (1, "launch")
    assert [verdict.cluster for verdict in placement.verdicts] == ["east", "west"]
    assert [entry.kind for entry in view.timeline] == ["launched", "placed", "fenced"]


async def test_nowhere_to_go_is_waiting_with_its_reason(world: World) -> None:
    run = await world.placed()
    view = await world.view(run)
    assert (view.phase, view.reason, view.epoch) == (Phase.WAITING, "no_cluster_alive", 0)
    await world.dispatch([run])
    kinds = [entry.kind for entry in (await world.view(run)).timeline]
    assert kinds == ["launched", "waiting"], "waiting on is told once"
    await world.join("east")
    await world.dispatch([run])
    view = await world.view(run)
    assert (view.phase, view.reason, view.placements[-1].cause) == (Phase.ASSIGNED, "", "launch")


async def test_again_changes_nothing(world: World) -> None:
    await world.join("east", "west")
    run = await world.placed()
    before = await world.rows()
    [done] = await world.dispatch([run])
    assert (done.epoch, done.cluster) == (1, "east")
    assert await world.rows() == before
    assert world.router.placements == 1


async def test_two_at_once_make_one_decision(world: World) -> None:
    await world.join("east", "west")
    run = await world.launch()
    await asyncio.gather(*(world.dispatch([run]) for _ in range(4)))
    view = await world.view(run)
    assert view.epoch == 1
    assert len(view.placements) == 1
    assert world.router.keys[run].epoch == 1


async def test_claimed_and_ended_runs_are_left_alone(world: World) -> None:
    await world.join("east", "west")
    run = await world.running()
    ended = await world.running(name="ended")
    await world.executions.cancel(ended)
    before = await world.rows()
    assert await world.dispatch([run, ended, "p/d/unknown"], again=True) == []
    assert await world.rows() == before


async def test_a_router_that_is_away_leaves_the_row_queued(world: World) -> None:
    await world.join("east")
    world.router.away = True
    run = await world.launch()
    with pytest.raises(Unreachable):
        await world.dispatch([run])
    assert (await world.view(run)).phase is Phase.QUEUED


async def test_i4_the_key_never_comes_before_the_fence(world: World) -> None:
    """At the moment of Assign the row already belongs to that cluster at that epoch."""
    await world.join("east")
    run = await world.launch()
    seen: list[tuple[int, str]] = []
    assign = world.router.assign

    async def looking(assignments: object) -> object:
        view = await world.view(run)
        seen.append((view.epoch, view.cluster))
        return await assign(assignments)  # type: ignore[arg-type]

    world.router.assign = looking  # type: ignore[method-assign, assignment]
    await world.dispatch([run])
    assert seen == [(1, "east")]


async def test_a_launch_cancelled_meanwhile_gets_no_owner(world: World) -> None:
    await world.join("east")
    run = await world.launch()
    place = world.router.place

    async def slow(requirements: object) -> object:
        answer = await place(requirements)  # type: ignore[arg-type]
        await world.executions.cancel(run)
        return answer

    world.router.place = slow  # type: ignore[method-assign, assignment]
    assert await world.dispatch([run]) == []
    view = await world.view(run)
    assert (view.phase, view.epoch) == (Phase.ABORTED, 1)
    assert world.router.keys == {}


CRASH = """
import asyncio, sys
from pathlib import Path
from control_plane.database import Database
from tests.control_plane.world import World
async def main():
    world = await World.build(Database(sys.argv[1]), Path(sys.argv[2]))
    world.router.up = ["east"]
    await world.launch()
    await world.dispatcher.drain()
asyncio.run(main())
"""


@pytest.mark.parametrize("point", ["after_place", "after_fence", "after_assign"])
async def test_i8_a_crash_between_any_two_steps_loses_nothing(tmp_path: Path, point: str) -> None:
    """A real SIGKILL in another process; the sweeper of this one takes up what it left."""
    url = f"sqlite+aiosqlite:///{tmp_path}/db"
    database = Database(url)
    await upgrade(database)
    world = await World.build(database, tmp_path)
    await world.join("east")
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", CRASH, url, str(tmp_path)],
        env={**os.environ, "WHIMBREL_CRASH_AT": f"dispatch.{point}", "PYTHONPATH": os.getcwd()},
        timeout=60,
        check=False,
    )
    assert done.returncode == -9
    world.later(2)
    await world.sweeper.sweep()
    await world.sweeper.waiting.look()
    await world.dispatcher.drain()
    assert world.router.keys["p/d/run"].epoch == 1
    assert (await world.claim("p/d/run", 1, "east", 1)).answer.claimed
    body: Output = output("a")
    assert (await world.send("p/d/run", body)).verdicts == ()
    await database.close()
