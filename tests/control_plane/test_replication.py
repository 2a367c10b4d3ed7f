"""Copies by policy: what lacks one gets one, checkpoints first, never where the data may not lie,
from rows alone."""

from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import select, text
from whimbrel.errors import NotFound, Refused, Unreachable
from whimbrel.spec import Artifact, PlacementPolicy, sha256

from control_plane.executions.loaded import EXECUTION
from control_plane.ledger.events import Output, Saved, Succeeded
from control_plane.ledger.replicas import copies_of, forget
from control_plane.movement.copying import Copied, copy_to
from control_plane.movement.replication import Replication
from tests.control_plane.world import World, output

pytestmark = pytest.mark.anyio

HOUR_NS = 3600 * 1_000_000_000
ABROAD = PlacementPolicy(replicate=("r-west",))


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def saved(node: str, uri: str) -> Saved:
    return Saved(node, 1, Artifact(uri, sha256(uri), 1, "r-east"), 5)


def made(node: str, uri: str) -> Output:
    return replace(output(node), artifacts=(Artifact(uri, sha256(uri), 1, "r-east"),))


async def started(world: World, policy: PlacementPolicy = ABROAD, name: str = "run") -> str:
    run = await world.launch(name=name, policy=policy)
    await world.dispatcher.drain()
    assert (await world.claim(run, 1, "east", 1)).answer.claimed
    return run


async def replicas(world: World, run: str) -> set[tuple[str, str]]:
    async with world.database.read() as connection:
        known = (await copies_of(connection, [run])).get(run, {})
    return {(uri, copy.region) for uri, copies in known.items() for copy in copies}


@pytest.fixture
async def two(world: World) -> World:
    await world.join("east", "west")
    return world


def replication(world: World, **more: Any) -> Replication:
    return Replication(world.database, world.router, **more)


async def test_what_a_run_makes_is_copied_checkpoints_first(two: World) -> None:
    run = await started(two)
    other = await started(two, PlacementPolicy(), "other")
    await two.send(run, made("a", "s3://east/a"), saved("b", "s3://east/b"))
    await two.send(other, made("a", "s3://east/o"))
    rounds = replication(two)
    assert await rounds.copy_some() == 2
    [(cluster, asked)] = two.router.copies_asked
    assert (cluster, [one.uri for one in asked]) == ("west", ["s3://east/b", "s3://east/a"])
    assert await replicas(two, run) == {("s3://east/a", "r-west"), ("s3://east/b", "r-west")}
    assert await replicas(two, other) == set()
    assert await replication(two).copy_some() == 0  # another replica of this server, or a restart
    await two.send(run, made("b", "s3://east/b2"))
    assert await rounds.copy_some() == 1


async def test_nothing_is_copied_where_the_data_may_not_lie(two: World) -> None:
    bound = PlacementPolicy(regions=("r-east", "r-n*"), replicate=("*",))
    run = await started(two, bound)
    await two.send(run, made("a", "s3://east/a"))
    assert await replication(two).copy_some() == 0
    assert two.router.copies_asked == []
    with pytest.raises(Refused, match=r"must stay in r-east, r-n\*; r-west is none"):
        await copy_to(two.database, two.router, run, cluster="west", region="r-west")
    await two.join("north")
    assert await replication(two).copy_some() == 1
    [(cluster, [asked])] = two.router.copies_asked
    assert (cluster, asked.allowed_regions) == ("north", ("r-east", "r-n*"))


async def test_what_does_not_arrive_is_let_be_for_a_while(two: World) -> None:
    run = await started(two)
    await two.send(run, made("a", "s3://east/a"))
    two.router.unreadable = {"s3://east/a"}
    clock = Clock()
    rounds = replication(two, clock=clock)
    for after, asked in ((0, 1), (0.5, 1), (1, 2), (2.5, 2), (3, 3)):
        clock.now = after
        assert await rounds.copy_some() == 0
        assert len(two.router.copies_asked) == asked
    two.router.unreadable = set()
    clock.now = 100
    assert await rounds.copy_some() == 1


async def test_what_can_never_be_copied_does_not_hold_up_the_rest(two: World) -> None:
    run = await started(two)
    names = [f"s3://east/{i:02}" for i in range(20)]
    two.router.unreadable = set(names[:16])
    for at, node in enumerate("abc"):
        mine = [Artifact(uri, sha256(uri), 1, "r-east") for uri in names[at * 7 : at * 7 + 7]]
        await two.send(run, replace(output(node), artifacts=tuple(mine)))
    clock = Clock()
    rounds = replication(two, clock=clock)
    await rounds.copy_some()
    clock.now = 1
    assert await rounds.copy_some() == 4


async def test_a_run_that_succeeded_is_looked_at_until_all_is_there(two: World) -> None:
    run = await started(two)
    await two.send(run, *(made(node, f"s3://east/{node}") for node in "abc"))
    await two.send(run, Succeeded("{}"))
    two.router.suspected["west"] = 1
    rounds = replication(two)
    assert await rounds.copy_some() == 0
    assert await wants(two, run)
    del two.router.suspected["west"]
    assert await rounds.copy_some() == 3
    await rounds.copy_some()
    assert not await wants(two, run)


async def test_a_run_that_was_cancelled_wants_no_copies(two: World) -> None:
    run = await started(two)
    await two.send(run, made("a", "s3://east/a"))
    two.router.unreadable = {"s3://east/a"}
    await two.executions.cancel(run)
    await replication(two).copy_some()
    assert not await wants(two, run)


async def wants(world: World, run: str) -> bool:
    async with world.database.read() as connection:
        found = await connection.execute(
            select(EXECUTION.c.replicating).where(EXECUTION.c.id == run)
        )
    return found.scalar_one()


async def test_a_move_copies_what_is_missing(two: World) -> None:
    run = await started(two, PlacementPolicy())
    await two.send(run, made("a", "s3://east/a"), saved("b", "s3://east/b"))
    two.router.unreadable = {"s3://east/b"}
    to_west: Any = {"cluster": "west", "region": "r-west"}
    assert await copy_to(two.database, two.router, run, **to_west) == Copied(1, 1, 1)
    two.router.unreadable = set()
    assert await copy_to(two.database, two.router, run, **to_west) == Copied(1, 1, 0)
    assert await copy_to(two.database, two.router, run, **to_west) == Copied(0, 0, 0)
    two.router.away = True
    await two.send(run, made("b", "s3://east/b2"))
    with pytest.raises(Unreachable):
        await copy_to(two.database, two.router, run, **to_west)
    with pytest.raises(NotFound):
        await copy_to(two.database, two.router, "p/d/none", **to_west)


async def test_a_claim_names_the_copies_to_read(two: World) -> None:
    run = await started(two)
    await two.send(run, made("a", "s3://east/a"), saved("b", "s3://east/b"))
    await replication(two).copy_some()
    # Its own originals lie beside it.
    assert (await two.claim(run, 1, "east", 1)).replicas == ()
    async with two.database.write() as connection:
        await connection.execute(
            text("UPDATE execution_fence SET owner_cluster = 'west', epoch = 2,"
                 " owner_cluster_epoch = 0")
        )  # fmt: skip
    copies = (await two.claim(run, 2, "west", 1)).replicas
    assert {(one.uri, one.artifact.region) for one in copies} == {
        ("s3://east/a", "r-west"),
        ("s3://east/b", "r-west"),
    }


async def test_a_copy_of_something_else_is_none(two: World) -> None:
    run = await started(two)
    await two.send(run, made("a", "s3://east/a"))

    async def wrong(*_: Any, folder: str) -> dict[str, Artifact]:
        return {"s3://east/a": Artifact("s3://west/a", sha256("b"), 1, "r-west")}

    two.router.copy = wrong
    assert await replication(two).copy_some() == 0
    assert await replicas(two, run) == set()


async def test_results_do_not_wait_for_ever_for_a_region_that_is_away(two: World) -> None:
    run = await started(two)
    await two.send(run, *(made(node, f"s3://east/{node}") for node in "abc"))
    await two.send(run, Succeeded("{}"))
    two.router.suspected["west"] = 1
    ended = (await two.view(run)).ended_ns
    await replication(two, now_ns=lambda: ended + 23 * HOUR_NS).copy_some()
    assert await wants(two, run)
    await replication(two, now_ns=lambda: ended + 25 * HOUR_NS).copy_some()
    assert not await wants(two, run)


async def test_a_complete_run_is_looked_at_again_when_it_makes_something(two: World) -> None:
    run = await started(two)
    rounds = replication(two)
    for at, event in enumerate((made("a", "s3://east/a"), saved("b", "s3://east/b"))):
        await two.send(run, event)
        assert await rounds.copy_some() == 1
        assert await rounds.copy_some() == 0, "complete"
        assert len(two.router.copies_asked) == at + 1
    later = Saved("b", 1, Artifact("s3://east/b2", sha256("b2"), 1, "r-east"), 6)
    await two.send(run, later)
    assert [await rounds.copy_some() for _ in range(2)] == [1, 0]
    await two.send(run, made("b", "s3://east/b3"))
    assert await rounds.copy_some() == 1


async def test_a_complete_run_is_looked_at_again_for_a_new_region(two: World) -> None:
    run = await started(two, PlacementPolicy(replicate=("r-*",)))
    await two.send(run, made("a", "s3://east/a"))
    rounds = replication(two)
    assert [await rounds.copy_some() for _ in range(2)] == [1, 0]
    await two.join("north")
    assert await rounds.copy_some() == 1


async def test_a_copy_that_was_forgotten_is_made_again(two: World) -> None:
    run = await started(two)
    await two.send(run, made("a", "s3://east/a"))
    rounds = replication(two)
    assert [await rounds.copy_some() for _ in range(2)] == [1, 0]
    async with two.database.write() as connection:
        [copies] = (await copies_of(connection, [run]))[run].values()
        await forget(connection, run, copies)
    assert await rounds.copy_some() == 1
