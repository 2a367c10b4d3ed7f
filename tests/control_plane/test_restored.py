"""SQL restored from an older backup, with agents and assignment keys ahead of it."""

import logging
import shutil
import sqlite3
from pathlib import Path

import pytest
from whimbrel.spec import Assignment, Mode, Phase, PlacementPolicy

from control_plane.database import Database
from control_plane.ledger.events import Body, Released, Result, Succeeded
from control_plane.ledger.fence import FenceRow, locked
from control_plane.ledger.restored import fence_above
from tests.control_plane.test_ledger_commit import BODIES
from tests.control_plane.test_sweeper import sweep
from tests.control_plane.world import World, chain, output

pytestmark = pytest.mark.anyio


async def row_of(world: World, run: str) -> FenceRow:
    async with world.database.write() as connection:
        return (await locked(connection, [run]))[run]


async def ahead(world: World, *, mode: Mode = Mode.IDEMPOTENT) -> str:
    """SQL knows that east runs it at epoch 1; west was given epoch 3."""
    await world.join("east", "west")
    policy = PlacementPolicy(mode=mode)
    run = await world.launch(chain("a", "b"), policy=policy)
    await world.dispatcher.drain()
    assert (await world.claim(run, 1, "east", 1)).answer.claimed
    world.router.keys[run] = Assignment(run, 3, "west")
    return run


async def fenced_above(world: World, run: str, *, epoch: int) -> None:
    row = await row_of(world, run)
    assert (row.epoch, row.owner_cluster, row.released) == (epoch, "", 0)
    view = await world.view(run)
    assert (view.phase, view.reason) == (Phase.WAITING, "restored")
    assert [line.epoch for line in view.timeline if line.kind == "alarm"] == [epoch]


def alarms(caplog: pytest.LogCaptureFixture) -> int:
    return sum(record.levelno == logging.CRITICAL for record in caplog.records)


async def test_a_commit_above_the_row_alarms_and_fences(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    run = await ahead(world)
    done = await world.send(run, output("a"), epoch=3, cluster="west")
    assert [(one.result, one.current_epoch) for one in done.verdicts] == [(Result.FENCED, 4)]
    await fenced_above(world, run, epoch=4)
    assert alarms(caplog) == 1
    again = await world.send(run, output("a"), epoch=3, cluster="west")
    assert [one.result for one in again.verdicts] == [Result.FENCED]
    await world.send(run, output("a"))
    assert (await world.rows("node_output"))["node_output"] == []
    assert (alarms(caplog), (await row_of(world, run)).epoch) == (1, 4)
    await sweep(world, 2)
    view = await world.view(run)
    assert (view.phase, view.epoch) == (Phase.ASSIGNED, 5)
    assert world.router.keys[run].epoch == 5


@pytest.mark.parametrize("kind", list(BODIES), ids=lambda kind: kind.__name__)
async def test_nothing_that_is_said_above_the_row_is_written(
    world: World, kind: type[Body]
) -> None:
    run = await ahead(world)
    tables = ("node_output", "node_state", "checkpoint", "wakeup")
    before = await world.rows(*tables)
    done = await world.send(run, BODIES[kind], epoch=3, cluster="west")
    assert [(one.result, one.current_epoch) for one in done.verdicts] == [(Result.FENCED, 4)]
    assert await world.rows(*tables) == before
    await fenced_above(world, run, epoch=4)


async def test_a_claim_above_the_row_does_too(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    run = await ahead(world)
    assert not (await world.claim(run, 3, "west", 1)).answer.claimed
    await fenced_above(world, run, epoch=4)
    assert not (await world.claim(run, 3, "west", 1)).answer.claimed
    assert not (await world.claim(run, 1, "east", 1)).answer.claimed
    assert alarms(caplog) == 1


async def test_a_key_above_the_row_does_too(world: World, caplog: pytest.LogCaptureFixture) -> None:
    run = await ahead(world)
    await world.sweeper.compare_keys()
    await fenced_above(world, run, epoch=4)
    assert alarms(caplog) == 1


async def test_a_key_of_the_same_cluster_does_too(world: World) -> None:
    run = await ahead(world)
    world.router.keys[run] = Assignment(run, 2, "east")
    await world.sweeper.compare_keys()
    await fenced_above(world, run, epoch=3)


async def test_a_key_that_stands_in_the_way_of_an_assignment_does_too(world: World) -> None:
    run = await ahead(world)
    await world.send(run, Released())
    await world.dispatch([run])
    await fenced_above(world, run, epoch=4)


async def test_what_is_not_behind_stays(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """Between a look at the keys and this one the row has moved on: nothing is wrong."""
    await world.join("east")
    run = await world.running()
    before = await world.rows()
    async with world.database.write() as connection:
        rows = await fence_above(connection, {run: 1}, by="an assignment key")
    assert (rows[run].epoch, await world.rows(), alarms(caplog)) == (1, before, 0)


async def test_exclusive_work_waits_for_whoever_had_it(world: World) -> None:
    run = await ahead(world, mode=Mode.EXCLUSIVE)
    await world.sweeper.compare_keys()
    await sweep(world, 2)
    assert (await world.view(run)).reason == "exclusive_wait"
    assert run not in world.router.keys, "west is told to stop"
    world.clock = 3.1
    await sweep(world, 3)
    assert (await world.view(run)).epoch == 5


async def test_what_has_ended_stays_ended(world: World, caplog: pytest.LogCaptureFixture) -> None:
    run = await ahead(world)
    await world.send(run, output("a"), output("b"), Succeeded("{}"))
    await world.send(run, output("a"), epoch=3, cluster="west")
    await world.claim(run, 3, "west", 1)
    assert ((await row_of(world, run)).epoch, alarms(caplog)) == (2, 0)


async def test_a_run_that_sql_does_not_know(world: World, caplog: pytest.LogCaptureFixture) -> None:
    await world.join("east")
    done = await world.send("p/d/lost", output("a"))
    assert [one.result for one in done.verdicts] == [Result.FENCED]
    assert not (await world.claim("p/d/lost", 1, "east", 1)).answer.claimed
    assert alarms(caplog) == 2


async def test_a_session_that_sql_does_not_know(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """Its events count from 1: an agent that has more confirmed is answered a gap, and says Hello
    anew."""
    run = await ahead(world)
    assert (await world.claim(run, 1, "east", 7)).answer.claimed
    assert alarms(caplog) == 1
    lost = await world.send(run, output("a"), session=7, first=20)
    assert (lost.gap_expected, lost.cursor) == (1, 0)
    assert await world.session("east") == 8
    assert (await world.claim(run, 1, "east", 8)).answer.claimed
    await world.send(run, output("a"), session=8)
    assert len((await world.rows("node_output"))["node_output"]) == 1
    await world.send("p/d/lost", output("a"), cluster="west", session=4)
    assert await world.session("west") == 5


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
async def test_a_file_copied_back(
    database: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The whole story on services: a backup, work after it, the backup again; then the agents
    speak."""
    before = await World.build(database, tmp_path)
    await before.join("east", "west")
    run = await before.running(chain("a", "b"))
    done = await before.running(chain("a", name="flows.single"), name="done")
    file, backup = tmp_path / "control-plane.db", tmp_path / "backup.db"
    with sqlite3.connect(file) as source, sqlite3.connect(backup) as copy:
        source.backup(copy)
    await before.send(run, output("a"))
    await before.send(run, Released())
    await before.dispatch([run])
    session = await before.session("west")
    assert (await before.claim(run, 2, "east", 1)).answer.claimed
    await before.send(done, output("a"), Succeeded("{}"))
    await before.delivery.deliver()
    await database.close()
    for name in tmp_path.glob("control-plane.db*"):
        name.unlink()
    shutil.copy(backup, file)

    restored = Database(f"sqlite+aiosqlite:///{file}")
    after = await World.build(restored, tmp_path)
    after.router.keys, after.router.up = before.router.keys, ["west"]
    # East goes on in its session: five events are confirmed to it, SQL knows none.
    told = await after.send(run, output("b"), epoch=2, first=6)
    assert told.gap_expected == 1
    assert await after.session("east") == 2
    assert not (await after.claim(run, 2, "east", 2)).answer.claimed
    assert (await row_of(after, run)).epoch == 3
    await sweep(after, 2)
    assert (await after.view(run)).epoch == 4
    assert (await after.claim(run, 4, "west", session)).answer.claimed
    assert await after.session("west") == session + 1
    # What ended after the backup is still east's, and ends once more.
    assert (await after.claim(done, 1, "east", 2)).answer.claimed
    await after.send(done, output("a"), Succeeded("{}"), session=2)
    assert (await after.view(done)).phase is Phase.SUCCEEDED
    assert alarms(caplog) == 2
    await restored.close()
