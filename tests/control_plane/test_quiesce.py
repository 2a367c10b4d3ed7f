"""A level of the row: its owner is to save and let go, and nothing says RUN over it meanwhile."""

import pytest
from sqlalchemy import update
from whimbrel.spec import Phase, Want

from control_plane.database import table
from control_plane.executions.store import Execution
from control_plane.ledger.codec import claim_pages
from control_plane.ledger.events import Released, Result, Succeeded
from control_plane.ledger.fence import FenceRow, FenceWish, fence, locked, quiesce
from control_plane.movement.journal import note, request
from tests.control_plane.test_sweeper import sweep
from tests.control_plane.world import World, chain, output

pytestmark = pytest.mark.anyio
EXECUTION = table(Execution)


async def row_of(world: World, run: str) -> FenceRow:
    async with world.database.write() as connection:
        return (await locked(connection, [run]))[run]


async def leave(world: World, run: str, *, epoch: int = 1) -> FenceRow | None:
    """What the story of a planned move does in its one transaction."""
    async with world.database.write() as connection:
        row = await quiesce(connection, run, epoch=epoch, cluster="east")
        if row is not None:
            await connection.execute(
                update(EXECUTION)
                .where(EXECUTION.c.id == run)
                .values(phase=Phase.MOVING.value, reason="migrating to west")
            )
    return row


async def open_migration(world: World, run: str) -> int:
    async with world.database.write() as connection:
        row = await request(
            connection, execution=run, cause="migration", drain="", from_cluster="east",
            from_epoch=1,
        )  # fmt: skip
    return row["number"]


async def test_quiesce_is_a_compare_and_set(world: World) -> None:
    await world.join("east", "west")
    run = await world.running(chain("a"))
    assert await leave(world, run, epoch=2) is None
    asked = await leave(world, run)
    assert asked is not None
    assert (asked.want, asked.epoch, asked.key_epoch) == (Want.QUIESCE, 1, 1)
    assert await leave(world, run) == asked
    async with world.database.write() as connection:
        assert await quiesce(connection, run, epoch=1, cluster="west") is None
        [fenced] = await fence(connection, [FenceWish(run, 2, "", "east", 1, "story")])
    assert fenced.row is not None
    assert fenced.row.want is Want.RUN
    assert await leave(world, run) is None


async def test_an_ended_run_is_not_asked_to_let_go(world: World) -> None:
    await world.join("east")
    run = await world.running(chain("a"))
    await world.send(run, output("a"), Succeeded("{}"))
    async with world.database.write() as connection:
        assert await quiesce(connection, run, epoch=2, cluster="east") is None


async def test_keys_say_what_the_row_says(world: World) -> None:
    await world.join("east")
    run = await world.placed(chain("a"))
    await leave(world, run)
    await world.sweeper.compare_keys()
    assert world.router.keys[run].want is Want.QUIESCE, "a key that says less is written again"
    world.router.keys.clear()
    await world.dispatch([run])
    assert world.router.keys[run].want is Want.QUIESCE
    world.router.keys.clear()
    await world.sweeper.compare_keys()
    assert world.router.keys[run].want is Want.QUIESCE


async def test_a_claim_goes_on_with_the_move(world: World) -> None:
    """The agent was restarted while it let go: it claims what it holds only to let go of it."""
    await world.join("east")
    run = await world.running(chain("a"))
    await leave(world, run)
    session = await world.session("east")
    claimed = await world.claim(run, 1, "east", session)
    assert claim_pages(claimed)[0].want == 2  # QUIESCE
    view = await world.view(run)
    assert (view.phase, view.reason) == (Phase.MOVING, "migrating to west")


async def test_released_stays_with_the_story(world: World) -> None:
    await world.join("east", "west")
    run = await world.running(chain("a"))
    await leave(world, run)
    await world.send(run, Released())
    row = await row_of(world, run)
    assert (row.owner_cluster, row.released, row.want) == ("", 1, Want.QUIESCE)
    await world.delivery.deliver()
    await world.dispatcher.drain()
    await sweep(world, 3)
    assert (await world.view(run)).phase is Phase.MOVING
    assert await world.dispatch([run]) == []
    [went] = await world.dispatch([run], moving=True, only={run: ["west"]}, cause="migration")
    assert (went.cluster, went.epoch) == ("west", 2)
    assert world.router.keys[run].want is Want.RUN
    assert (await world.view(run)).placements[-1].cause == "migration"


async def test_a_place_that_is_refused_leaves_the_run_to_its_story(world: World) -> None:
    await world.join("east", "west")
    run = await world.running(chain("a"))
    await leave(world, run)
    await world.send(run, Released())
    world.router.up = ["east"]
    [nowhere] = await world.dispatch([run], moving=True, only={run: ["west"]})
    assert (nowhere.cluster, nowhere.reason) == ("", "no_cluster_alive")
    assert (await world.view(run)).phase is Phase.MOVING
    [back] = await world.dispatch([run], moving=True, only={run: ["east"]})
    assert back.cluster == "east"


async def test_an_open_move_gets_its_own_story_back(world: World) -> None:
    await world.join("east")
    run = await world.running(chain("a"))
    number = await open_migration(world, run)
    await leave(world, run)
    await world.send(run, Released())
    async with world.database.write() as connection:
        await connection.exec_driver_sql("UPDATE execution_fence SET fenced_ns = 1")
    await sweep(world, 5)
    assert (world.movement.moves, world.movement.resumed) == ([], [])
    await sweep(world, 11)
    assert (world.movement.moves, world.movement.resumed) == ([], [(run, number)])
    async with world.database.write() as connection:
        await note(connection, run, number, phase="FAILED", ended_ns=1)
    await sweep(world, 11)
    assert world.movement.moves == [(run, 1)]


async def test_an_owner_that_is_asked_by_nobody_gets_a_story(world: World) -> None:
    await world.join("east")
    run = await world.running(chain("a"))
    await leave(world, run)
    await sweep(world, 11)
    assert world.movement.resumed == []
    await sweep(world, 61)
    assert world.movement.resumed == [(run, 1)]
    await sweep(world, 61)
    assert world.movement.resumed == [(run, 1)], "its move is open again"


async def test_cancel_in_every_phase_before_the_end(world: World) -> None:
    queued = await world.launch(chain("a"), name="queued")
    waiting = await world.placed(chain("a"), name="waiting")
    await world.join("east")
    assigned = await world.placed(chain("a"), name="assigned")
    leaving, released = [
        await world.running(chain("a"), name=name) for name in ("leaving", "released")
    ]
    for run in (leaving, released):
        await leave(world, run)
    await world.send(released, Released())
    for run in (queued, waiting, assigned, leaving, released):
        before = (await row_of(world, run)).epoch
        assert (await world.executions.cancel(run)).phase is Phase.ABORTED
        row = await row_of(world, run)
        assert (row.epoch, row.terminal) == (before + 1, True)
        assert (await world.executions.cancel(run)).epoch == row.epoch
    await world.delivery.deliver()
    await sweep(world, 90)
    assert world.router.keys == {}
    assert (world.movement.moves, world.movement.resumed) == ([], [])
    done = await world.send(leaving, output("a"))
    assert [verdict.result for verdict in done.verdicts] == [Result.FENCED]
    assert not (await world.claim(assigned, 1, "east", 1)).answer.claimed
    assert (await world.dispatch([released, leaving], moving=True)) == []


async def test_a_row_of_an_ended_move_is_not_reopened_at_once(world: World) -> None:
    await world.join("east")
    run = await world.running(chain("a"))
    await leave(world, run)
    number = await open_migration(world, run)
    world.later(100)
    async with world.database.write() as connection:
        await note(connection, run, number, phase="REFUSED", ended_ns=world.now - 10)
    await world.sweeper.sweep()
    assert world.movement.resumed == []
