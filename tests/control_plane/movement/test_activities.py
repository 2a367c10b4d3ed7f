"""The steps on SQLite: what a takeover touches, what it leaves alone, that it may be repeated."""

import dataclasses

import pytest
from sqlalchemy import Connection, inspect
from whimbrel.errors import Unreachable
from whimbrel.spec import Mode

from control_plane.database import table
from control_plane.executions.store import Execution, Placement, Timeline
from control_plane.ledger.fence import FENCE, locked
from control_plane.ledger.store import ExecutionFence, NodeState
from control_plane.movement.rows import to_nobody
from control_plane.movement.steps import Batch, Failover, Hold, Move, Summary, Taken
from control_plane.movement.store import FailoverSummary
from tests.control_plane.movement.world import World

pytestmark = pytest.mark.anyio

LOST = Batch(cluster="us-east", cluster_epoch=3, limit=100)


async def test_a_lost_run_is_fenced_twice_and_assigned(world: World) -> None:
    run = await world.run("run")
    assert await world.steps.take_over_batch(LOST) == Taken(taken=1, waiting=0)
    assert await world.fence(run) == (3, "eu-west")
    assert await world.phase(run) == "ASSIGNED"
    assert [(item.execution, item.epoch) for item in world.router.assignments] == [(run, 3)]
    assert await world.told(run) == ["suspected", "fenced", "placed", "fenced"]
    assert [row["cause"] for row in await world.rows(Placement)] == ["failover"]


async def test_only_what_the_lost_session_owns_is_taken(world: World) -> None:
    unclaimed = await world.run("unclaimed", session=0, phase="ASSIGNED")
    older = await world.run("older", session=2)
    newer = await world.run("newer", session=4)
    elsewhere = await world.run("elsewhere", owner="eu-west", session=1)
    stays = await world.run("stays", failover=False)
    ended = await world.run("ended", phase="SUCCEEDED")
    assert await world.steps.take_over_batch(LOST) == Taken(taken=2, waiting=0)
    for taken in (unclaimed, older):
        assert await world.fence(taken) == (3, "eu-west")
    for left in (newer, stays, ended):
        assert await world.fence(left) == (1, "us-east")
    assert await world.fence(elsewhere) == (1, "eu-west")
    assert await world.phase(ended) == "SUCCEEDED"


async def test_what_is_never_replaced_says_so_once(world: World) -> None:
    pinned = await world.run("pinned", mode=Mode.PINNED)
    stays = await world.run("stays", failover=False)
    for _ in range(2):
        assert (await world.steps.take_over_batch(LOST)).taken == 0
    assert await world.fence(pinned) == (1, "us-east")
    reasons = {row["id"]: row["reason"] for row in await world.rows(Execution)}
    assert reasons == {
        pinned: "pinned: its cluster us-east is lost",
        stays: "stays: its cluster us-east is lost",
    }
    assert (await world.told(pinned), await world.told(stays)) == (["pinned"], ["stays"])


async def test_ended_runs_do_not_fill_a_batch(world: World) -> None:
    await world.run("a-ended", phase="SUCCEEDED")
    run = await world.run("b-running")
    one = dataclasses.replace(LOST, limit=1)
    assert await world.steps.take_over_batch(one) == Taken(taken=1, waiting=0)
    assert await world.fence(run) == (3, "eu-west")


async def test_what_has_priority_is_taken_over_and_assigned_first(world: World) -> None:
    for name, priority in (("a-low", -1), ("b-plain", 0), ("c-high", 7), ("d-plain", 0)):
        await world.run(name, priority=priority)
    await world.steps.take_over_batch(dataclasses.replace(LOST, limit=3))
    turn = [item.execution.rsplit("/", 1)[1] for item in world.router.assignments]
    assert turn == ["c-high", "b-plain", "d-plain"]
    assert await world.fence("p/d/a-low") == (1, "us-east")
    await world.steps.take_over_batch(dataclasses.replace(LOST, limit=3))
    assert await world.fence("p/d/a-low") == (3, "eu-west")


async def test_a_repeated_batch_changes_nothing(world: World) -> None:
    run = await world.run("run")
    await world.steps.take_over_batch(LOST)
    before = await world.rows(ExecutionFence), await world.rows(Timeline)
    assert await world.steps.take_over_batch(LOST) == Taken(taken=0, waiting=0)
    assert (await world.rows(ExecutionFence), await world.rows(Timeline)) == before
    assert await world.fence(run) == (3, "eu-west")


async def test_what_a_crash_left_half_way_is_taken_up(world: World) -> None:
    run = await world.run("run")

    async def crash(*_: object, **__: object) -> None:
        raise Unreachable("the router is away")

    placed, world.router.snapshot = world.router.snapshot, crash  # type: ignore[method-assign]
    with pytest.raises(Unreachable):
        await world.steps.take_over_batch(LOST)
    assert await world.fence(run) == (2, "")
    assert await world.phase(run) == "MOVING"
    world.router.snapshot = placed  # type: ignore[method-assign]
    assert await world.steps.take_over_batch(LOST) == Taken(taken=1, waiting=0)
    assert await world.fence(run) == (3, "eu-west")
    summary = (await world.rows(FailoverSummary))[0]
    assert summary["taken"] == 1


@pytest.mark.fault(31)
async def test_a_row_claimed_meanwhile_is_left_to_its_claimant(world: World) -> None:
    run = await world.run("run")
    async with world.database.write() as connection:
        seen = (await locked(connection, [run]))[run]
        await connection.execute(FENCE.update().values(owner_cluster_epoch=4))
        assert await to_nobody(connection, [(seen, "RUNNING")], story="failover/us-east/3") == []
    assert await world.fence(run) == (1, "us-east")
    assert await world.phase(run) == "RUNNING"


async def test_readable_outputs_are_kept(world: World) -> None:
    run = await world.run("run")
    await world.output(run, "a", uri="file:///us-east/a")
    await world.output(run, "b")
    await world.steps.take_over_batch(LOST)
    assert await world.live() == {"a", "b"}
    assert await world.rows(NodeState) == []


async def test_the_unreadable_is_declared_with_everything_made_from_it(world: World) -> None:
    run = await world.run("run")
    await world.output(run, "a", uri="file:///us-east/a")
    await world.output(run, "b")
    world.router.gone = "file:///us-east"
    await world.steps.take_over_batch(LOST)
    assert await world.live() == set()
    lineage = {row["node"]: row["lineage"] for row in await world.rows(NodeState)}
    assert lineage == {
        "a": "recomputed: file:///us-east/a can't be read from any live region",
        "b": "recomputed: made from a, which is computed again",
    }
    assert "unreachable" in await world.told(run)


async def test_nobody_to_ask_declares_nothing(world: World) -> None:
    run = await world.run("run")
    await world.output(run, "a", uri="file:///us-east/a")
    world.router.gone = "file:///us-east"
    world.router.mute = {"eu-west", "ap-south"}
    await world.steps.take_over_batch(LOST)
    assert await world.live() == {"a"}
    assert await world.fence(run) == (3, "eu-west")


async def test_without_capacity_it_waits_with_its_reason(world: World) -> None:
    run = await world.run("run")
    world.router.full = True
    assert await world.steps.take_over_batch(LOST) == Taken(taken=1, waiting=1)
    assert await world.fence(run) == (2, "")
    assert await world.phase(run) == "WAITING"
    assert await world.steps.take_over_batch(LOST) == Taken(taken=0, waiting=0)


async def test_a_mass_loss_is_said_once(world: World) -> None:
    run = await world.run("run")
    world.router.clusters = [
        dataclasses.replace(cluster, alive=False, lost_since_ns=10)
        for cluster in world.router.clusters
    ]
    hold = Hold(cluster="us-east", cluster_epoch=3, since_ns=10)
    for _ in range(2):
        assert (await world.steps.watch_loss(hold)).hold.startswith("3 of 3 clusters")
    assert await world.told(run) == ["held"]


async def test_the_summary_counts(world: World) -> None:
    await world.run("one")
    await world.run("two")
    await world.steps.take_over_batch(LOST)
    story = Failover(cluster="us-east", cluster_epoch=3, since_ns=1, taken=2, waiting=1)
    summary = await world.steps.summarize(story)
    assert summary == Summary(cluster="us-east", cluster_epoch=3, moved=1, waiting=1)
    row = (await world.rows(FailoverSummary))[0]
    assert (row["moved"], row["waiting"], row["ended_ns"] > 0) == (1, 1, True)


async def test_one_run_moves(world: World) -> None:
    run = await world.run("run")
    move = Move(execution=run, epoch=1)
    assert (await world.steps.release(move)).ours
    assert (await world.steps.release(move)).ours  # as a retry would
    assert await world.fence(run) == (2, "")
    placed = await world.steps.place(move)
    assert (placed.cluster, placed.epoch) == ("eu-west", 3)
    assert not await world.steps.claimed(Move(execution=run, epoch=3))


async def test_an_ownerless_run_moves_without_another_fence(world: World) -> None:
    run = await world.run("run", owner="", session=0, epoch=2, phase="MOVING")
    assert (await world.steps.release(Move(execution=run, epoch=2))).ours
    assert await world.fence(run) == (2, "")


@pytest.mark.fault(31)
@pytest.mark.parametrize(("owner", "epoch"), [("eu-west", 1), ("us-east", 2)])
async def test_what_lives_or_has_gone_on_is_not_released(
    world: World, owner: str, epoch: int
) -> None:
    run = await world.run("run", owner=owner, session=1, epoch=epoch)
    assert not (await world.steps.release(Move(execution=run, epoch=1))).ours
    assert await world.fence(run) == (epoch, owner)


async def test_a_later_session_than_the_lost_one_keeps_what_it_claimed(world: World) -> None:
    """The snapshot still calls session 3 lost; session 4 has come, and claimed, since."""
    run = await world.run("run", session=4)
    assert not (await world.steps.release(Move(execution=run, epoch=1))).ours
    assert await world.fence(run) == (1, "us-east")
    lost = await world.run("lost", session=3)
    assert (await world.steps.release(Move(execution=lost, epoch=1))).ours


async def test_the_migrated_table_is_the_one_the_code_knows(world: World) -> None:
    def names(connection: Connection) -> set[str]:
        return {column["name"] for column in inspect(connection).get_columns("failover_summary")}

    async with world.database.read() as connection:
        assert await connection.run_sync(names) == set(table(FailoverSummary).columns.keys())
