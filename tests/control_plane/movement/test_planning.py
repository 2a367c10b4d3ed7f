"""The doors of planned moves: the plan, what is refused and where that is told, one at a time."""

import pytest
from whimbrel.errors import NotFound, Refused

from control_plane.ledger.store import Checkpoint, NodeState
from control_plane.movement.planned import End, Migrate
from control_plane.movement.store import Migration
from tests.control_plane.movement.planned import Planned

pytestmark = pytest.mark.anyio


async def test_the_plan_says_what_becomes_of_each_node(planned: Planned) -> None:
    run = await planned.world.run("run")
    await planned.world.output(run, "a", uri="file:///us-east/a")
    for node in ("b", "c"):
        await planned.world.add(NodeState, execution=run, node=node, phase="RUNNING", epoch=1)
    saved = '{"uri":"file:///us-east/k","sha256":"0","bytes":10,"region":"us-east"}'
    await planned.world.add(
        Checkpoint, execution=run, node="b", attempt=1, epoch=1, artifact=saved, at_ns=1
    )
    plan = await planned.moves.plan(run, to="eu-west")
    assert (plan.number, plan.phase, plan.from_cluster, plan.to_cluster) == (
        0, "PREPARE", "us-east", "eu-west",
    )  # fmt: skip
    assert [(node.node, node.what, node.bytes) for node in plan.nodes] == [
        ("a", "kept", 1), ("b", "resumed", 10), ("c", "run again", 0),
    ]  # fmt: skip
    assert plan.nodes[1].why.startswith("checkpoint of ")
    assert await planned.world.rows(Migration) == []


async def test_what_can_not_be_moved_is_refused_with_a_remedy(planned: Planned) -> None:
    run = await planned.world.run("run")
    ended = await planned.world.run("ended", phase="SUCCEEDED")
    waiting = await planned.world.run("waiting", owner="", session=0, phase="WAITING")
    for asked, to, error in (
        ("p/d/none", "", NotFound), (run, "nowhere", NotFound), (run, "us-east", Refused),
        (ended, "", Refused), (waiting, "", Refused),
    ):  # fmt: skip
        with pytest.raises(error) as raised:
            await planned.moves.migrate(asked, to=to)
        assert raised.value.remedy
    assert await planned.world.rows(Migration) == []


async def test_a_refused_target_is_written_in_the_runs_own_story(planned: Planned) -> None:
    run = await planned.world.run("run")
    planned.world.router.refusing = {"eu-west"}
    with pytest.raises(Refused, match="eu-west is full"):
        await planned.moves.migrate(run, to="eu-west")
    assert await planned.world.told(run) == ["refused"]
    row = await planned.row()
    assert (row["phase"], row["reason"], row["ended_ns"] > 0) == ("REFUSED", "room", True)
    assert planned.told.started == []


async def test_one_open_migration_a_run(planned: Planned) -> None:
    run = await planned.world.run("run")
    first = await planned.moves.migrate(run)
    await planned.let_go(run)  # in its midst it has no owner
    again = await planned.moves.migrate(run, to="ap-south")
    assert (first.number, again.number, again.to_cluster) == (1, 1, "eu-west")
    assert planned.told.started == [(run, 1), (run, 1)]


async def test_without_temporal_nothing_is_begun(planned: Planned) -> None:
    run = await planned.world.run("run")
    planned.told.off = True
    with pytest.raises(Refused):
        await planned.moves.migrate(run)
    assert await planned.world.rows(Migration) == []


async def test_stories_that_were_never_told_are_told(planned: Planned) -> None:
    run = await planned.world.run("run")
    await planned.begin(run)
    planned.told.started.clear()
    await planned.moves.tell_open()
    assert planned.told.started == [(run, 1)]
    await planned.settling.end(End(Migrate(run, 1), "ENDED"))
    await planned.moves.tell_open()
    assert planned.told.started == [(run, 1)]


async def test_what_was_ended_in_temporal_does_not_stay_open(planned: Planned) -> None:
    run = await planned.world.run("run")
    await planned.begin(run)
    await planned.moves.drain(cluster="us-east")
    planned.told.over = True
    await planned.moves.tell_open()
    row = await planned.row()
    assert (row["phase"], row["reason"], row["ended_ns"] > 0) == ("FAILED", "stopped", True)
    assert "ended in Temporal" in row["why"]
    assert await planned.world.fence(run) == (1, "us-east")
    view = await planned.moves.drained("us-east")
    assert view is not None
    assert (view.phase, view.ended_ns > 0) == ("CANCELLED", True)
    # The next one is another story.
    planned.told.over = False
    assert (await planned.moves.migrate(run)).number == 2
