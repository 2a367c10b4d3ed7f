"""Versions never change, bundles are what their digest says, and clusters keep their region."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from whimbrel.errors import Conflict, InvalidInput, NotFound, Refused, TooLarge
from whimbrel.spec import digest, sha256

from control_plane.registry import bundles
from control_plane.registry.service import Key
from control_plane.routing.port import Registration
from tests.control_plane.world import World, chain, pieces

pytestmark = pytest.mark.anyio


async def test_the_same_meaning_again_is_a_no_op(world: World) -> None:
    [first] = await world.registry.register("p", "d", "v1", [chain("a")])
    [again] = await world.registry.register("p", "d", "v1", [chain("a")])
    assert (first.created, again.created) == (True, False)
    assert first.digest == again.digest == digest(chain("a"))


async def test_another_meaning_is_refused_field_by_field(world: World) -> None:
    await world.registry.register("p", "d", "v1", [chain("a", "b")])
    spec = chain("a", "b")
    changed = replace(spec, tasks=(replace(spec.tasks[0], retries=3),))
    with pytest.raises(Conflict, match=r"tasks\.flows\.step\.retries: 0 -> 3"):
        await world.registry.register("p", "d", "v1", [changed])
    with pytest.raises(Conflict, match=r"nodes\.b: .* -> \(absent\)"):
        await world.registry.register("p", "d", "v1", [chain("a")])
    stored = await world.registry.get(Key("p", "d", spec.name, "v1"))
    assert stored.digest == digest(spec)


async def test_two_at_once_agree_or_one_is_refused(world: World) -> None:
    done = await asyncio.gather(
        *(world.registry.register("p", "d", "v1", [chain(*nodes)]) for nodes in ("a", "ab") * 2),
        return_exceptions=True,
    )
    refused = [item for item in done if isinstance(item, Conflict)]
    assert len(refused) == 2
    assert len([item for item in done if isinstance(item, list)]) == 2


async def test_the_newest_version_is_meant_when_none_is_named(world: World) -> None:
    for version in ("v1", "v2"):
        await world.registry.register("p", "d", version, [chain("a")])
    assert (await world.registry.get(Key("p", "d", "flows.chain"))).key.version == "v2"
    with pytest.raises(NotFound):
        await world.registry.get(Key("p", "d", "flows.chain", "v3"))
    assert len(await world.registry.list("p", "d", "", 0)) == 2


async def test_all_of_a_registration_or_nothing(world: World) -> None:
    await world.registry.register("p", "d", "v1", [chain("a", name="f.two")])
    with pytest.raises(Conflict):
        await world.registry.register(
            "p", "d", "v1", [chain("a", name="f.one"), chain("a", "b", name="f.two")]
        )
    assert [item.key.name for item in await world.registry.list("p", "d", "", 0)] == ["f.two"]


async def test_a_version_needs_its_bundle(world: World) -> None:
    with pytest.raises(Refused, match="not uploaded"):
        await world.registry.register("p", "d", "v1", [replace(chain("a"), bundle="0" * 64)])


async def test_bundles_are_checked_and_never_half_written(world: World, tmp_path: Path) -> None:
    data = b"x" * 1000
    with pytest.raises(InvalidInput, match="digest"):
        await world.registry.put_bundle(pieces(sha256(b"other"), data))
    assert not (tmp_path / "bundles" / sha256(b"other")).exists()
    assert not await world.registry.has_bundle(sha256(data))
    assert await world.registry.put_bundle(pieces(sha256(data), data)) == (sha256(data), 1000)
    assert await world.registry.put_bundle(pieces(sha256(data), data)) == (sha256(data), 1000)
    assert b"".join([piece async for piece in world.registry.bundle(sha256(data))]) == data
    with pytest.raises(NotFound):
        _ = [piece async for piece in world.registry.bundle("0" * 64)]


async def test_a_bundle_over_the_limit(world: World) -> None:
    data = b"\0" * (bundles.LIMIT + 1)
    with pytest.raises(TooLarge, match="32 MiB"):
        await world.registry.put_bundle(pieces(sha256(data), data, size=1 << 20))


async def test_sessions_count_up_and_know_their_region(world: World) -> None:
    await world.join("east")
    assert [await world.session("east") for _ in range(3)] == [2, 3, 4]
    with pytest.raises(InvalidInput, match="region r-east, not r-west"):
        await world.ledger.open_session("east", incarnation="i", region="r-west")
    with pytest.raises(NotFound, match="no cluster north"):
        await world.ledger.open_session("north", incarnation="i", region="r")
    known = await world.clusters.get("east")
    assert known.cluster_epoch == 4


async def test_registrations_reach_the_router(world: World) -> None:
    await world.join("east")
    await world.clusters.set_scheduling("east", "cordoned")
    assert world.router.registrations == [Registration("east", "r-east", (), "cordoned")]
    with pytest.raises(InvalidInput, match="no scheduling state"):
        await world.clusters.set_scheduling("east", "tired")
    with pytest.raises(Conflict, match="region r-east"):
        await world.clusters.register(Registration("east", "r-west"))
    again = await world.clusters.register(Registration("east", "r-east"))
    assert again.registration.scheduling == "cordoned", "registering again uncordons nothing"
    world.router.away = True
    assert (await world.clusters.set_scheduling("east", "active")).live is None


async def test_a_loss_is_handed_to_movement(world: World) -> None:
    await world.ledger.lost("east", 3, since_ns=1)
    assert world.movement.losses == [("east", 3)]
