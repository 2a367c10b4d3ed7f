"""The fence: every rule of the compare-and-set, alone and in a race against a commit."""

import asyncio
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.database import Database
from control_plane.ledger.events import Batch, Event, Result
from control_plane.ledger.fence import (
    FenceRow,
    FenceWish,
    admits,
    end,
    fence,
    judge,
    locked,
    owns,
)
from tests.control_plane.world import World, chain, output

ROW = FenceRow("x", 3, "east", 5, "d3", 0, terminal=False)
WISH = FenceWish("x", 4, "west", "east", 5, "d4")


def test_a_fence_gives_the_row_to_its_cluster_unclaimed() -> None:
    after = judge(ROW, WISH)
    assert after is not None
    assert (after.epoch, after.owner_cluster, after.owner_cluster_epoch) == (4, "west", 0)


def test_the_same_decision_again_changes_nothing() -> None:
    done = replace(ROW, epoch=4, owner_cluster="west", owner_cluster_epoch=9, decision_digest="d4")
    assert judge(done, WISH) is done


@pytest.mark.parametrize(
    ("row", "wish"),
    [
        (ROW, replace(WISH, epoch=5)),
        (ROW, replace(WISH, epoch=3)),
        (ROW, replace(WISH, seen_cluster="")),
        (ROW, replace(WISH, seen_cluster_epoch=4)),
        (ROW, replace(WISH, seen_cluster_epoch=0)),
        (replace(ROW, terminal=True), WISH),
        (replace(ROW, epoch=4, decision_digest="another"), WISH),
        (replace(ROW, epoch=4, decision_digest="d4", terminal=True), WISH),
    ],
)
def test_anything_else_is_refused(row: FenceRow, wish: FenceWish) -> None:
    assert judge(row, wish) is None


rows = st.builds(
    FenceRow,
    execution=st.just("x"),
    epoch=st.integers(0, 3),
    owner_cluster=st.sampled_from(["", "east", "west"]),
    owner_cluster_epoch=st.integers(0, 3),
    decision_digest=st.sampled_from(["", "d"]),
    released=st.integers(0, 1),
    terminal=st.booleans(),
)


@given(rows, st.integers(0, 4), st.sampled_from(["", "east"]), st.integers(0, 3))
def test_i1_no_rule_lowers_an_epoch(row: FenceRow, epoch: int, cluster: str, seen: int) -> None:
    after = judge(row, FenceWish("x", epoch, cluster, row.owner_cluster, seen, "d"))
    assert after is None or after.epoch >= row.epoch


@given(rows, st.integers(0, 4), st.sampled_from(["", "east"]), st.integers(0, 3))
def test_who_owns_could_claim(row: FenceRow, epoch: int, cluster: str, session: int) -> None:
    if owns(row, epoch=epoch, cluster=cluster, cluster_epoch=session):
        assert admits(row, epoch=epoch, cluster=cluster, cluster_epoch=session)


@pytest.mark.parametrize(
    "row",
    [
        replace(ROW, epoch=4),
        replace(ROW, epoch=2),
        replace(ROW, owner_cluster="west"),
        replace(ROW, owner_cluster=""),
        replace(ROW, owner_cluster_epoch=6),
        replace(ROW, released=1),
        replace(ROW, terminal=True),
    ],
)
def test_each_part_of_an_ownership_is_compared(row: FenceRow) -> None:
    assert owns(ROW, epoch=3, cluster="east", cluster_epoch=5)
    assert admits(ROW, epoch=3, cluster="east", cluster_epoch=5)
    assert not owns(row, epoch=3, cluster="east", cluster_epoch=5)
    assert not admits(row, epoch=3, cluster="east", cluster_epoch=5)


def test_a_claim_is_needed_and_may_be_new() -> None:
    unclaimed = replace(ROW, owner_cluster_epoch=0)
    assert admits(unclaimed, epoch=3, cluster="east", cluster_epoch=5)
    assert not owns(unclaimed, epoch=3, cluster="east", cluster_epoch=5)
    assert not owns(unclaimed, epoch=3, cluster="east", cluster_epoch=0)
    nobodys = replace(unclaimed, owner_cluster="")
    assert not admits(nobodys, epoch=3, cluster="", cluster_epoch=5)


@pytest.mark.anyio
async def test_a_batch_of_fences(world: World) -> None:
    await world.join("east")
    runs = [await world.running(name=f"run{index}") for index in range(3)]
    wishes = [FenceWish(run, 2, "", "east", 1, f"story/{run}") for run in runs]
    wishes.append(FenceWish("p/d/nobody", 2, "", "east", 1, "?"))
    wishes[2] = replace(wishes[2], seen_cluster_epoch=0)
    async with world.database.write() as connection:
        answers = await fence(connection, wishes)
    assert [answer.fenced for answer in answers] == [True, True, False, False]
    async with world.database.write() as connection:
        again = await fence(connection, wishes)
        found = await locked(connection, runs)
    assert [answer.fenced for answer in again] == [True, True, False, False]
    assert [found[run].epoch for run in runs] == [2, 2, 1]


@pytest.mark.anyio
async def test_an_ended_row_is_never_fenced_again(world: World) -> None:
    await world.join("east")
    run = await world.running()
    async with world.database.write() as connection:
        await end(connection, [run])
        assert (await end(connection, [run]))[run].epoch == 2
        [answer] = await fence(connection, [FenceWish(run, 3, "west", "east", 1, "d")])
    assert not answer.fenced


@pytest.mark.anyio
async def test_i3_a_fence_and_a_commit_never_both_win(world: World) -> None:
    """Many races: whichever comes first, no output of epoch 1 appears after the fence to 2."""
    await world.join("east")
    other = Database(world.database.url.render_as_string(hide_password=False))
    taken = 0
    for index in range(25):
        run = await world.running(chain("a"), name=f"run{index}")
        await asyncio.gather(take(other, run), commit(world, run, index))
        found = (await world.rows("node_output"))["node_output"]
        seen = visible_at_fence[run]
        live = sum(run in row for row in found)
        assert live == seen, "an output of the old epoch was written after the fence"
        taken += live
    await other.close()
    assert 0 <= taken <= 25


visible_at_fence: dict[str, int] = {}


async def take(database: Database, run: str) -> None:
    """What a takeover does: fence, and then read what is committed, in one transaction."""
    from control_plane.ledger.declare import live_outputs

    async with database.write() as connection:
        [answer] = await fence(connection, [FenceWish(run, 2, "", "east", 1, "story")])
        assert answer.fenced
        visible_at_fence[run] = len(await live_outputs(connection, run))


async def commit(world: World, run: str, index: int) -> None:
    await asyncio.sleep(0)
    batch = Batch("east", 1, index + 1, (Event(run, 1, output("a")),))
    done = await world.ledger.commit(batch)
    if done.verdicts:
        assert done.verdicts[0].result is Result.FENCED


@pytest.mark.anyio
async def test_i3_a_commit_waits_for_a_fence_that_is_open(world: World) -> None:
    """The fence holds the row; the commit that comes meanwhile sees the new epoch, not the old."""
    await world.join("east")
    run = await world.running(chain("a"))
    other = Database(world.database.url.render_as_string(hide_password=False))
    async with other.write() as connection:
        await fence(connection, [FenceWish(run, 2, "", "east", 1, "story")])
        pending = asyncio.ensure_future(world.send(run, output("a")))
        done, _ = await asyncio.wait([pending], timeout=0.3)
        assert not done, "the commit did not wait for the row"
    committed = await pending
    await other.close()
    assert [verdict.result for verdict in committed.verdicts] == [Result.FENCED]
    assert (await world.rows("node_output"))["node_output"] == []


@pytest.mark.anyio
async def test_i1_of_two_fences_at_once_one_wins(world: World) -> None:
    """The second reads the row when the first has written it, and decides anew."""
    await world.join("east")
    run = await world.running(chain("a"))
    other = Database(world.database.url.render_as_string(hide_password=False))

    async def late() -> bool:
        async with world.database.write() as connection:
            [answer] = await fence(connection, [FenceWish(run, 2, "west", "east", 1, "another")])
        return answer.fenced

    async with other.write() as connection:
        [answer] = await fence(connection, [FenceWish(run, 2, "", "east", 1, "story")])
        pending = asyncio.ensure_future(late())
        await asyncio.wait([pending], timeout=0.3)
    assert answer.fenced
    assert not await pending
    await other.close()


@pytest.mark.anyio
async def test_a_refused_fence_is_assigned_to_nobody(world: World) -> None:
    """Another dispatcher was quicker, and its owner has claimed."""
    await world.join("east", "west")
    run = await world.launch()
    place = world.router.place

    async def slow(requirements: object) -> object:
        answer = await place(requirements)  # type: ignore[arg-type]
        world.router.place = place  # type: ignore[method-assign]
        await world.dispatch([run])
        assert (await world.claim(run, 1, "east", 1)).answer.claimed
        world.router.keys.clear()
        return answer

    world.router.place = slow  # type: ignore[method-assign, assignment]
    assert await world.dispatch([run]) == []
    assert world.router.keys == {}
    assert len((await world.view(run)).placements) == 1


@pytest.mark.anyio
async def test_i3_a_fence_waits_for_a_commit_that_is_open(world: World) -> None:
    from control_plane.ledger.commit import commit as commit_in

    await world.join("east")
    run = await world.running(chain("a"))
    other = Database(world.database.url.render_as_string(hide_password=False))
    async with world.database.write() as connection:
        batch = Batch("east", 1, 1, (Event(run, 1, output("a")),))
        assert (await commit_in(connection, batch, world.graphs)).verdicts == ()
        pending = asyncio.ensure_future(take(other, run))
        done, _ = await asyncio.wait([pending], timeout=0.3)
        assert not done, "the fence did not wait for the row"
    await pending
    await other.close()
    assert visible_at_fence[run] == 1
