"""Pods that are cancelled, left behind by an agent that died, or nobody's: each is told of once or
deleted."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from data_plane_agent.launcher import Broke, Finished, Found, Started
from data_plane_agent.pods.api import ApiDown
from data_plane_agent.pods.codec import pod_name
from tests.data_plane_agent.pods.world import World, attempt, broke, done, world

pytestmark = pytest.mark.anyio
KEY = attempt().key


@pytest.fixture
async def w(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as made:
        assert await made.hear() == Found({})
        yield made


def deleted(w: World, name: str) -> bool:
    return name not in w.api.pods or "deletionTimestamp" in w.api.pods[name]["metadata"]


# -- cancel --------------------------------------------------------------------------------------


async def test_cancelled_before_its_pod_is_made_no_pod_is_left(w: World) -> None:
    w.api.lost["create"] = 1
    await w.launcher.start([attempt()])
    await w.launcher.cancel([KEY])
    await w.until(lambda: not w.launcher._making)
    await w.until(lambda: not w.api.pods)
    await w.quiet()


async def test_cancelled_when_the_create_has_had_no_answer_the_pod_is_found_and_deleted(
    w: World,
) -> None:
    await w.until(lambda: len(w.api._watches) == 2)
    w.api.go_deaf()
    w.api.lost["create"] = 1
    name = await w.start(attempt())
    await w.launcher.cancel([KEY])
    await w.until(lambda: name not in w.api.pods)
    await w.quiet()


async def test_cancelled_after_its_end_was_heard_it_is_not_told(w: World) -> None:
    name = await w.start(attempt())
    w.api.end(name, done())
    await w.until(lambda: len(w.launcher._news) == 2)
    await w.launcher.cancel([KEY])
    other = attempt("other")
    w.api.run(await w.start(other))
    assert (await w.hear()).key == other.key  # pyright: ignore[reportAttributeAccessIssue]


async def test_started_again_while_its_old_pod_can_not_be_deleted_it_does_not_take_it(
    w: World,
) -> None:
    name = await w.start(attempt())
    await w.until(lambda: w.launcher._held[name].uid)
    old = w.api.pods[name]["metadata"]["uid"]
    w.api.refuse["delete"] = [ApiDown("not now")] * 30
    await w.launcher.cancel([KEY])
    await w.launcher.start([attempt()])
    await w.until(lambda: name in w.api.pods and w.api.pods[name]["metadata"]["uid"] != old)
    w.api.run(name)
    assert isinstance(await w.hear(), Started)


async def test_started_again_while_a_create_is_under_way_it_makes_a_pod_of_its_own(
    w: World,
) -> None:
    await w.until(lambda: len(w.api._watches) == 2)
    w.api.go_deaf()
    w.api.answers.clear()
    name = await w.start(attempt())
    old = w.api.pods[name]["metadata"]["uid"]
    await w.launcher.cancel([KEY])
    await w.launcher.start([attempt()])
    await w.quiet()
    w.api.answers.set()
    await w.until(lambda: name in w.api.pods and w.api.pods[name]["metadata"]["uid"] != old)
    await w.until(lambda: w.launcher._held[name].uid)
    assert w.launcher._held[name].uid == w.api.pods[name]["metadata"]["uid"]


@pytest.mark.parametrize("state", ["pending", "running", "ended"])
async def test_cancelled_in_each_state_nothing_follows(w: World, state: str) -> None:
    name = await w.start(attempt())
    if state != "pending":
        w.api.run(name)
        assert isinstance(await w.hear(), Started)
    if state == "ended":
        w.api.end(name, done())
    await w.launcher.cancel([KEY])
    await w.until(lambda: deleted(w, name))
    if name in w.api.pods:
        w.api.remove("pods", name)
    await w.quiet()
    assert w.launcher.capacity().running == 0


async def test_cancelled_while_the_api_server_is_down_it_is_deleted_later(w: World) -> None:
    name = await w.start(attempt())
    await w.until(lambda: w.launcher._held[name].uid)
    w.api.go_down()
    await w.launcher.cancel([KEY])
    await w.quiet()
    w.api.down = False
    await w.until(lambda: name not in w.api.pods)


async def test_started_again_after_a_cancel_it_waits_for_the_old_pod(w: World) -> None:
    name = await w.start(attempt())
    w.api.run(name)
    assert isinstance(await w.hear(), Started)
    old = w.api.pods[name]["metadata"]["uid"]
    await w.launcher.cancel([KEY])
    await w.launcher.start([attempt()])
    await w.until(lambda: deleted(w, name))
    w.api.end(name, done())  # the old one's: not to be taken for the new one's
    await w.until(lambda: name in w.api.pods and w.api.pods[name]["metadata"]["uid"] != old)
    await w.quiet()
    w.api.run(name)
    assert isinstance(await w.hear(), Started)


# -- restart -------------------------------------------------------------------------------------


async def test_a_running_pod_is_found_and_its_end_told(w: World) -> None:
    name = await w.start(attempt())
    w.api.run(name)
    assert isinstance(await w.hear(), Started)
    await w.restart()
    assert await w.hear() == Found({KEY: "digest of n"})
    assert isinstance(await w.hear(), Started)
    w.api.end(name, done())
    assert isinstance(await w.hear(), Finished)


async def test_a_pod_that_waits_is_found_too(w: World) -> None:
    await w.start(attempt())
    await w.restart()
    assert await w.hear() == Found({KEY: "digest of n"})
    assert w.launcher.capacity().queued == 1


async def test_what_ended_meanwhile_is_found_and_told(w: World) -> None:
    name = await w.start(attempt())
    await w.launcher.close(kill=False)
    w.api.end(name, done())
    await w.open()
    assert await w.hear() == Found({KEY: "digest of n"})
    assert isinstance(await w.hear(), Started)
    assert isinstance(await w.hear(), Finished)


async def test_an_end_that_was_taken_is_not_told_again(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.hear()
        name = await w.start(attempt())
        w.api.end(name, broke(), code=1)
        assert isinstance(await w.hear(), Started)
        assert isinstance(await w.hear(), Broke)
        w.api.down = True  # it can't be deleted
        waiting = w.hear()
        task = asyncio.ensure_future(waiting)
        await w.until(lambda: any((tmp_path / "agent" / "removed-pods").iterdir()))
        task.cancel()
        w.api.down = False
        assert name in w.api.pods
        await w.restart()
        assert await w.hear() == Found({})
        await w.until(lambda: not w.api.pods)
        await w.until(lambda: not any((tmp_path / "agent" / "removed-pods").iterdir()))


async def test_an_end_that_was_not_taken_is_told_again(w: World) -> None:
    name = await w.start(attempt())
    w.api.end(name, broke(), code=1)
    assert isinstance(await w.hear(), Started)
    assert isinstance(await w.hear(), Broke)
    await w.restart()  # nobody has asked for the next batch
    assert await w.hear() == Found({KEY: "digest of n"})


async def test_an_end_that_is_not_on_disk_is_told_again(w: World) -> None:
    """Whoever asks for the next batch has this one in memory only. Until it is taken nobody sweeps
    its pod; one that is cancelled is forgotten."""
    name = await w.start(attempt())
    w.api.end(name, done())
    assert isinstance(await w.hear(), Started)
    assert isinstance(await w.hear(), Finished)
    waiting = asyncio.ensure_future(anext(w.batches))  # pyright: ignore[reportArgumentType]
    w.now += 10_000
    await asyncio.sleep(0.1)
    assert name in w.api.pods
    waiting.cancel()
    await w.restart()
    assert await w.hear() == Found({KEY: "digest of n"})
    assert isinstance(await w.hear(), Started)
    assert isinstance(await w.hear(), Finished)
    await w.launcher.cancel([KEY])
    await w.until(lambda: not w.api.pods)


async def test_killed_between_create_and_record_the_pod_is_adopted(w: World) -> None:
    name = await w.start(attempt())
    await w.restart()
    found = await w.hear()
    await w.launcher.start([attempt()])
    w.api.run(name)
    assert found == Found({KEY: "digest of n"})
    assert isinstance(await w.hear(), Started)
    assert list(w.api.pods) == [name]


async def test_an_api_server_that_is_down_at_the_start_is_waited_for(w: World) -> None:
    await w.start(attempt())
    await w.launcher.close(kill=False)
    w.api.down = True
    await w.open()
    assert w.launcher.capacity().ill
    w.api.down = False
    assert await w.hear() == Found({KEY: "digest of n"})


# -- orphans -------------------------------------------------------------------------------------


async def test_a_pod_of_nobody_is_deleted_once_it_is_old(w: World) -> None:
    name = await w.start(attempt())
    stray: dict[str, Any] = {**w.api.pods[name]}
    stray["metadata"] = {**stray["metadata"], "name": "w-stray", "uid": "uid-stray"}
    w.api.put("pods", stray)
    w.now += 61
    await w.quiet()
    assert "w-stray" in w.api.pods
    old = {**stray, "metadata": {**stray["metadata"], "creationTimestamp": "2020-01-01T00:00:00Z"}}
    w.api.put("pods", old)
    seen = w.launcher._pods.items
    await w.until(lambda: seen["w-stray"]["metadata"]["creationTimestamp"].startswith("2020"))
    w.now += 61  # not before the watch has told: the sweep looks only this once
    await w.until(lambda: "w-stray" not in w.api.pods)
    assert name in w.api.pods


async def test_kill_at_close_deletes_what_runs(w: World) -> None:
    name = await w.start(attempt())
    await w.until(lambda: w.launcher._held[name].uid)
    await w.launcher.close(kill=True)
    assert not w.api.pods
    assert name == pod_name(KEY)
