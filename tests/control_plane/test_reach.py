"""After a loss: what has a readable copy is kept as that, the rest is computed again, and each
node says which."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from whimbrel.spec import Artifact, sha256

from control_plane.ledger.claims import Claimed
from control_plane.ledger.events import Output, Saved, Status, Unreachable
from control_plane.ledger.fence import locked
from control_plane.ledger.replicas import copies_of
from control_plane.movement.copying import copy_to
from control_plane.movement.reach import Reach
from control_plane.movement.rows import to_nobody
from tests.control_plane.world import World, output

pytestmark = pytest.mark.anyio


def made(node: str) -> Output:
    uri = f"s3://east/{node}"
    return replace(output(node), artifacts=(Artifact(uri, sha256(uri), 1, "r-east"),))


def saved(node: str) -> Saved:
    return Saved(node, 1, Artifact(f"s3://east/{node}", sha256(node), 1, "r-east"), 5)


@pytest.fixture
async def lost(world: World) -> World:
    """`run` has made `a` and `b`, and saved a checkpoint of `c`, in the east."""
    await world.join("east", "west", "north")
    run = await world.running()
    await world.send(run, made("a"), made("b"), Status("c", 1, "RUNNING", 1), saved("c"))
    return world


async def take_over(world: World, *, unreadable: Sequence[str]) -> None:
    world.router.unreadable = set(unreadable)
    world.router.suspected["east"] = 1
    world.router.up = [name for name in world.router.up if name != "east"]
    async with world.database.write() as connection:
        rows = await locked(connection, ["p/d/run"])
        fenced = await to_nobody(connection, [(rows["p/d/run"], "RUNNING")], story="s")
    reach = Reach(world.database, world.router, world.graphs)
    for _ in range(2):  # a step may be repeated
        await reach.declare(fenced, snapshot=await world.router.snapshot(), lost="east")


async def lineage(world: World, cluster: str = "west") -> dict[str, str]:
    await world.dispatch(["p/d/run"], cause="failover", avoid={}, moving=True)
    view = await world.view("p/d/run")
    assert view.cluster == cluster
    return {node.id: node.lineage for node in view.nodes}


async def told(world: World) -> list[str]:
    view = await world.view("p/d/run")
    return [line.text for line in view.timeline if line.kind in ("kept", "unreachable")]


EAST = [f"s3://east/{node}" for node in "abc"]


async def test_without_copies_what_is_out_of_reach_is_computed_again(lost: World) -> None:
    await take_over(lost, unreadable=EAST)
    assert (await told(lost))[:2] == [
        "0 nodes kept, 2 computed again: a, b",
        "1 begin anew, their checkpoint can't be read: c",
    ]
    found = await lineage(lost)
    assert found["a"].startswith("recomputed: s3://east/a can't be read")
    assert found["b"].startswith("recomputed: s3://east/b can't be read")
    assert found["c"].startswith("begun anew: s3://east/c can't be read")


async def copied(world: World, cluster: str) -> None:
    await copy_to(world.database, world.router, "p/d/run", cluster=cluster, region=f"r-{cluster}")


async def claimed(world: World, cluster: str) -> Claimed:
    view = await world.view("p/d/run")
    return await world.claim("p/d/run", view.epoch, cluster, 1)


async def test_what_has_a_copy_is_kept(lost: World) -> None:
    await copied(lost, "west")
    await take_over(lost, unreadable=EAST)
    assert await told(lost) == [
        "2 kept as copies in r-west: a, b; 1 resume from a copy of their checkpoint: c"
    ]
    assert await lineage(lost) == {
        "a": "kept: copy in r-west",
        "b": "kept: copy in r-west",
        "c": "resumed: copy of its checkpoint in r-west",
    }
    copies = (await claimed(lost, "west")).replicas
    assert {copy.uri for copy in copies} == set(EAST)


async def test_a_cluster_elsewhere_is_told_the_copy_too(lost: World) -> None:
    await copied(lost, "north")
    await take_over(lost, unreadable=EAST)
    assert (await lineage(lost))["a"] == "kept: copy in r-north"
    copies = (await claimed(lost, "west")).replicas
    assert {copy.artifact.region for copy in copies} == {"r-north"}


async def test_a_copy_that_nobody_reads_either_is_none(lost: World) -> None:
    await copied(lost, "north")
    north = await uris(lost)
    await take_over(lost, unreadable=[*EAST, *north])
    assert (await lineage(lost))["a"].startswith("recomputed")


async def uris(world: World) -> list[str]:
    async with world.database.read() as connection:
        known = (await copies_of(connection, ["p/d/run"])).get("p/d/run", {})
    return [copy.artifact.uri for copies in known.values() for copy in copies]


async def test_an_original_that_can_be_read_is_read(lost: World) -> None:
    await copied(lost, "north")
    await take_over(lost, unreadable=[])
    assert await told(lost) == []
    assert (await lineage(lost))["a"] == "kept"
    assert (await claimed(lost, "west")).replicas == ()


async def test_an_owner_that_cannot_read_the_original_reads_a_copy(lost: World) -> None:
    await copied(lost, "north")
    await lost.send("p/d/run", Unreachable("c", ("s3://east/b",)))
    view = await lost.view("p/d/run")
    assert view.timeline[-1].text == "c can't read s3://east/b; read elsewhere: s3://east/b"
    async with lost.database.read() as connection:
        known = (await copies_of(connection, ["p/d/run"]))["p/d/run"]
    assert [uri for uri, [copy] in known.items() if copy.chosen] == ["s3://east/b"]


async def test_a_copy_that_cannot_be_read_is_forgotten_then_the_node_runs_again(
    lost: World,
) -> None:
    await copied(lost, "west")
    await take_over(lost, unreadable=EAST)
    await lineage(lost)
    copies = {copy.uri: copy.artifact.uri for copy in (await claimed(lost, "west")).replicas}
    west: Any = {"epoch": (await lost.view("p/d/run")).epoch, "cluster": "west"}
    await lost.send("p/d/run", Unreachable("c", (copies["s3://east/b"],)), **west)
    view = await lost.view("p/d/run")
    assert view.timeline[-1].kind == "unreachable"
    assert len(await uris(lost)) == 2
    await lost.dispatch(["p/d/run"])
    west["epoch"] = (await lost.view("p/d/run")).epoch
    answer = await claimed(lost, "west")
    assert {copy.uri for copy in answer.replicas} == {"s3://east/a", "s3://east/c"}
    await lost.send("p/d/run", Unreachable("c", ("s3://east/b",)), **west)
    assert (await lost.view("p/d/run")).nodes[1].lineage.startswith("recomputed")


async def test_an_original_that_is_back_is_read_again(lost: World) -> None:
    await copied(lost, "north")
    await take_over(lost, unreadable=EAST)
    await lineage(lost)
    async with lost.database.write() as connection:
        rows = await locked(connection, ["p/d/run"])
        fenced = await to_nobody(connection, [(rows["p/d/run"], "ASSIGNED")], story="s2")
    lost.router.unreadable = set()
    reach = Reach(lost.database, lost.router, lost.graphs)
    await reach.declare(fenced, snapshot=await lost.router.snapshot(), lost="west")
    assert (await lineage(lost))["a"] == "kept"


async def test_a_region_that_is_back_without_its_store_reads_the_copy(lost: World) -> None:
    await copied(lost, "north")
    await take_over(lost, unreadable=EAST)
    lost.router.suspected, lost.router.up = {}, ["east"]
    await lineage(lost, "east")
    assert {copy.region for copy in (await claimed(lost, "east")).replicas} == {"r-north"}


async def test_a_row_that_went_on_is_left_alone(lost: World) -> None:
    async with lost.database.write() as connection:
        rows = await locked(connection, ["p/d/run"])
        fenced = await to_nobody(connection, [(rows["p/d/run"], "RUNNING")], story="s")
    await lineage(lost, "east")
    lost.router.unreadable = set(EAST)
    reach = Reach(lost.database, lost.router, lost.graphs)
    await reach.declare(fenced, snapshot=await lost.router.snapshot(), lost="")
    assert await told(lost) == []
