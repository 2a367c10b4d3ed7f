"""The steps of a planned move on SQLite: what is asked of the source, where the run goes, that each
step may be repeated."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import update
from whimbrel.errors import Refused
from whimbrel.spec import Want

from control_plane.database import table
from control_plane.executions.store import Execution, Timeline
from control_plane.ledger.fence import FENCE
from control_plane.ledger.store import NodeState
from control_plane.movement.planned import End, Send, Stage, Wait
from tests.control_plane.movement.planned import Planned

pytestmark = pytest.mark.anyio


async def test_a_move_from_end_to_end(planned: Planned) -> None:
    run, story = await planned.gone(await planned.world.run("run"))
    asked = planned.world.router.assignments[-1]
    assert (asked.want, asked.epoch, asked.cluster) == (Want.QUIESCE, 1, "us-east")
    await planned.settling.hand_over(story)
    assert planned.copies == [(run, "eu-west", "eu-west")] * 2
    placed = await planned.settling.send(Send(story))
    assert placed == Stage("placed", "eu-west", 2)
    assert await planned.settling.send(Send(story)) == placed  # as a retry would
    assert await planned.world.fence(run) == (2, "eu-west")
    await planned.claim(run)
    claimed = await planned.settling.claimed(Wait(story, 1.0, 2))
    assert claimed == Stage("claimed", "eu-west", 2)
    await planned.world.add(
        NodeState, execution=run, node="b", phase="RUNNING", epoch=2, started_ns=2**62
    )
    assert (await planned.settling.resumed(Wait(story, 1.0, 2))).state == "resumed"
    ended = await planned.settling.end(End(story, "resumed"))
    assert (ended.phase, ended.cluster) == ("RESUMED", "eu-west")
    row = await planned.row()
    assert 0 < row["quiesced_ns"] <= row["released_ns"] <= row["claimed_ns"] < row["resumed_ns"]
    assert await planned.world.told(run) == ["migrating", "quiesced", "placed", "fenced", "moved"]


async def test_the_run_says_that_it_moves(planned: Planned) -> None:
    run = await planned.world.run("run")
    story = await planned.begin(run)
    await planned.leaving.prepare(story)
    for _ in range(2):
        assert (await planned.leaving.quiesce(story)).state == "go"
    [row] = await planned.world.rows(Execution)
    assert (row["phase"], row["reason"]) == ("MOVING", "migrating to eu-west")
    assert await planned.world.told(run) == ["migrating"]
    assert (await planned.row())["phase"] == "CHECKPOINT"


async def test_a_mute_source_loses_idempotent_work(planned: Planned) -> None:
    run = await planned.world.run("run")
    await planned.world.output(run, "a", uri="file:///us-east/a")
    story = await planned.begin(run)
    await planned.leaving.prepare(story)
    await planned.leaving.quiesce(story)
    silent = await planned.leaving.released(Wait(story, 0.0))
    assert (silent.state, silent.patient) == ("silent", False)
    planned.world.router.gone = "file:///us-east"
    for _ in range(2):
        assert (await planned.leaving.take(story)).state == "released"
        assert await planned.world.fence(run) == (2, "")
    assert await planned.world.live() == set()
    assert await planned.settling.send(Send(story)) == Stage("placed", "eu-west", 3)
    assert "us-east did not let go in 0.2 s" in str(
        [row["text"] for row in await planned.world.rows(Timeline)]
    )


async def test_only_its_owner_lets_go_of_what_does_harm_twice(planned: Planned) -> None:
    run = await planned.world.run("run")
    async with planned.world.database.write() as connection:
        await connection.execute(update(table(Execution)).values(mode="exclusive"))
    story = await planned.begin(run)
    await planned.leaving.quiesce(story)
    assert (await planned.leaving.released(Wait(story, 0.0))).patient
    async with planned.world.database.write() as connection:
        await connection.execute(update(FENCE).values(owner_cluster_epoch=0))
    assert not (await planned.leaving.released(Wait(story, 0.0))).patient
    assert await planned.world.fence(run) == (1, "us-east")


async def test_a_release_after_the_limit_counts(planned: Planned) -> None:
    run = await planned.world.run("run")
    story = await planned.begin(run)
    await planned.leaving.quiesce(story)
    await planned.let_go(run)
    assert (await planned.leaving.take(story)).state == "released"
    assert await planned.world.fence(run) == (1, "")


@pytest.mark.fault(39)
@pytest.mark.parametrize("step", ["prepare", "quiesce", "released", "take"])
async def test_a_takeover_ends_the_move(planned: Planned, step: str) -> None:
    run = await planned.world.run("run")
    story = await planned.begin(run)
    async with planned.world.database.write() as connection:
        await connection.execute(update(FENCE).values(epoch=3, owner_cluster="ap-south"))
    argument: Any = Wait(story, 1.0) if step == "released" else story
    stage = await getattr(planned.leaving, step)(argument)
    assert (stage.state, stage.cluster, stage.epoch) == ("TAKEN_OVER", "ap-south", 3)
    assert await planned.world.fence(run) == (3, "ap-south")


@pytest.mark.parametrize("step", ["prepare", "quiesce", "released", "take"])
async def test_a_run_that_ends_meanwhile_ends_the_move(planned: Planned, step: str) -> None:
    story = await planned.begin(await planned.world.run("run"))
    async with planned.world.database.write() as connection:
        await connection.execute(update(FENCE).values(epoch=2, terminal=True))
    argument: Any = Wait(story, 1.0) if step == "released" else story
    assert (await getattr(planned.leaving, step)(argument)).state == "ENDED"


async def test_a_target_that_refuses_sends_it_back(planned: Planned) -> None:
    run, story = await planned.gone(await planned.world.run("run"))
    planned.world.router.refusing = {"eu-west", "ap-south"}
    assert await planned.settling.send(Send(story)) == Stage("placed", "us-east", 2)
    await planned.claim(run)
    assert (await planned.settling.claimed(Wait(story, 1.0, 2))).state == "claimed"
    assert (await planned.settling.end(End(story, "claimed"))).phase == "FAILED"
    row = await planned.row()
    assert (row["reason"], row["why"]) == (
        "target_refused", "eu-west refused it: it went to us-east",
    )  # fmt: skip


async def test_a_target_that_does_not_claim_loses_it_to_the_source(planned: Planned) -> None:
    _, story = await planned.gone(await planned.world.run("run"))
    await planned.settling.send(Send(story))
    late = await planned.settling.claimed(Wait(story, 0.0, 2))
    assert late == Stage("unclaimed", epoch=2)
    back = Send(story, unclaimed_epoch=late.epoch)
    for _ in range(2):
        assert await planned.settling.send(back) == Stage("placed", "us-east", 3)
    assert (await planned.row())["reason"] == "unclaimed"


async def test_where_nobody_takes_it_it_waits(planned: Planned) -> None:
    run, story = await planned.gone(await planned.world.run("run"))
    planned.world.router.full = True
    stage = await planned.settling.send(Send(story))
    assert (stage.state, stage.reason) == ("FAILED", "no_place")
    assert await planned.world.phase(run) == "WAITING"


async def test_a_lost_level_is_put_again(planned: Planned) -> None:
    story = await planned.begin(await planned.world.run("run"))
    await planned.leaving.quiesce(story)
    before = len(planned.world.router.assignments)
    ticks = iter(range(0, 1000, 4))
    planned.leaving.clock = lambda: float(next(ticks))
    async with asyncio.timeout(5):
        await planned.leaving.released(Wait(story, 5.0))
    assert len(planned.world.router.assignments) == before + 1


async def test_an_ended_move_is_never_written_again(planned: Planned) -> None:
    run, story = await planned.gone(await planned.world.run("run"))
    await planned.settling.end(End(story, "TAKEN_OVER", why="its source died"))
    before = await planned.row()
    await planned.settling.send(Send(story))
    await planned.claim(run)
    await planned.settling.claimed(Wait(story, 1.0, 2))
    await planned.settling.end(End(story, "claimed"))
    assert await planned.row() == before


async def test_data_that_may_not_lie_there_keeps_the_run_where_it_is(planned: Planned) -> None:
    run = await planned.world.run("run")
    story = await planned.begin(run)

    async def copy(execution: str, /, *, cluster: str, region: str) -> None:
        raise Refused(f"the data of {execution} must stay in eu-central")

    planned.leaving.copy = copy
    stage = await planned.leaving.prepare(story)
    assert (stage.state, stage.reason) == ("REFUSED", "residency")
    await planned.settling.end(End(story, stage.state, stage.reason, stage.why))
    assert await planned.world.told(run) == ["refused"]
    assert await planned.world.fence(run) == (1, "us-east")


async def test_what_can_not_be_copied_in_time_is_no_reason_to_stay(planned: Planned) -> None:
    story = await planned.begin(await planned.world.run("run"))

    async def copy(execution: str, /, *, cluster: str, region: str) -> None:
        await asyncio.Event().wait()

    planned.leaving.copy = copy
    slow = replace(story, copy_seconds=0.01)
    assert (await planned.leaving.prepare(slow)).state == "go"
