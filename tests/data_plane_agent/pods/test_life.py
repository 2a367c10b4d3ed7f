"""The rare crossings: pods of one name, a stale picture, a slow engine, ends that meet."""

import asyncio
import copy
import json
import logging
from pathlib import Path
from typing import Any

import pytest
from whimbrel.spec import Resources

from data_plane_agent.launcher import Attempt, Broke, Finished, Started
from data_plane_agent.pods.api import ApiDown, Denied
from data_plane_agent.pods.cluster import SETTLE_SECONDS
from data_plane_agent.pods.codec import manifest, pod_name
from tests.data_plane_agent.pods.cluster_fake import Object
from tests.data_plane_agent.pods.scene import Scene, attempt, done, scene
from tests.data_plane_agent.virtual_time import until, virtual


def uid_of(here: Scene, name: str) -> str:
    return here.cluster.pods[name]["metadata"]["uid"]


async def stored(here: Scene, one: Attempt, name: str) -> str:
    folder = here.cluster.pods[name]["metadata"]["annotations"]["whimbrel.dev/order-folder"]
    made = await here.blobs.put(f"{folder}/result.json", done(one).encode())
    return json.dumps({"t": "stored", "uri": made.uri, "sha256": made.sha256, "bytes": made.bytes})


async def stranger(here: Scene, pod: Object, name: str = "w-stranger") -> None:
    made = copy.deepcopy(pod)
    made["metadata"]["name"] = name
    await here.cluster.create(made)
    here.cluster.runs(name, host="b")


@virtual
async def test_an_end_is_of_the_pod_that_ended(tmp_path: Path) -> None:
    """While its answer is fetched somebody makes another pod of that name."""
    async with scene(tmp_path) as here:
        one = attempt()
        name = await here.runs(one)
        said = await stored(here, one, name)
        here.blobs.away = True
        here.cluster.ends(name, said)
        await asyncio.sleep(1)
        old = here.cluster.pods[name]
        here.cluster.remove(name)
        await stranger(here, old, name)
        await asyncio.sleep(5)
        here.blobs.away = False
        end = await here.told_of(Finished)
        assert end.host == "a"
        assert [event.host for event in here.all(Started)] == ["a"]
        await asyncio.sleep(30)
        assert "deletionTimestamp" not in here.cluster.pods[name]["metadata"]


@virtual
async def test_what_was_true_before_the_api_server_was_ill(tmp_path: Path) -> None:
    """It is back, and its first news take a second: the node is well and the pod was done."""
    async with scene(tmp_path) as here:
        one = attempt()
        name = await here.runs(one)
        await here.cluster.delete(name, uid=uid_of(here, name), grace_seconds=999)
        await asyncio.sleep(1)
        here.cluster.node("a", ready="Unknown")
        here.cluster.fail(ApiDown("no answer"))
        await asyncio.sleep(30)
        here.cluster.node("a")
        here.cluster.ends(name, done(one))
        here.cluster.lag = 1.5
        here.cluster.fail(None)
        await until(lambda: here.ends)
        assert isinstance(here.ends[0], Finished)


@virtual
async def test_news_of_an_end_make_no_second_end(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        name = await here.runs(attempt())
        here.cluster.logs[name] = b"last words"
        here.cluster.ends(name, code=3)
        here.cluster.set(name, podIP="10.0.0.1")
        here.cluster.set(name, podIP="")
        here.cluster.remove(name)
        await here.told_of(Broke)
        await asyncio.sleep(5)
        assert len([uri for uri in here.blobs.objects if "rescued" in uri]) <= 1
        assert here.cluster.called("log") == 1
        assert len(here.ends) == 1


@virtual
async def test_a_pod_whose_delete_is_not_taken_yet_is_not_taken_over(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        one = attempt()
        name = await here.runs(one)
        old = uid_of(here, name)
        here.cluster.breaks("delete", ApiDown("no answer"))
        await here.launcher.cancel([one.key])
        await here.launcher.start([one])
        await asyncio.sleep(10)
        assert uid_of(here, name) == old
        here.cluster.broken.clear()
        here.told.clear()
        await until(lambda: name in here.cluster.pods and uid_of(here, name) != old)
        here.cluster.ends(name, done(one))
        await here.told_of(Finished)
        assert len(here.ends) == 1


@virtual
async def test_started_again_in_the_middle_of_a_cancelled_create(tmp_path: Path) -> None:
    """The first one's pod must not be taken by the second, and then be deleted."""
    async with scene(tmp_path) as here:
        one = attempt()
        await here.launcher.start([one])
        while not here.cluster.called("create"):
            await asyncio.sleep(0.0001)
        await here.launcher.cancel([one.key])
        await here.launcher.start([one])
        await asyncio.sleep(60)
        assert here.told == []
        here.cluster.ends(pod_name(one.key), done(one))
        await here.told_of(Finished)


@virtual
async def test_a_delete_without_the_right_to(tmp_path: Path) -> None:
    """Somebody gives it back, sooner or later."""
    async with scene(tmp_path) as here:
        await here.runs(attempt())
        here.cluster.breaks("delete", Denied("no right to delete", status=403))
        await here.launcher.cancel([attempt().key])
        await asyncio.sleep(200)
        assert here.cluster.pods
        assert here.cluster.called("delete") < 30
        here.cluster.broken.clear()
        await until(lambda: not here.cluster.pods)


# -- what is swept --------------------------------------------------------------------------------


@virtual
async def test_a_young_pod_is_not_swept(tmp_path: Path) -> None:
    async with scene(tmp_path, orphan_seconds=60) as here:
        own = await here.runs(attempt())
        await asyncio.sleep(40)
        await stranger(here, here.cluster.pods[own])
        made = here.cluster.pods["w-stranger"]["metadata"]
        await asyncio.sleep(50)
        assert "deletionTimestamp" not in made
        await until(lambda: "w-stranger" not in here.cluster.pods, seconds=120)


@virtual
async def test_an_end_that_is_being_taken_keeps_its_pod(tmp_path: Path) -> None:
    """Killed now, the next agent has to tell it again."""
    async with scene(tmp_path, orphan_seconds=60, linger_seconds=0) as here:
        one = attempt()
        name = await here.runs(one)
        await asyncio.sleep(100)
        here.busy = True
        here.cluster.ends(name, done(one))
        await here.told_of(Finished)
        await asyncio.sleep(300)
        assert not here.cluster.called("delete")
        await here.restart()
        assert here.found == {one.key: one.input_digest}
        await here.told_of(Finished)
        await until(lambda: not here.cluster.pods)


@virtual
async def test_a_lingering_pod_is_not_swept(tmp_path: Path) -> None:
    async with scene(tmp_path, orphan_seconds=60, linger_seconds=500) as here:
        one = attempt()
        name = await here.runs(one)
        here.cluster.ends(name, done(one))
        await asyncio.sleep(400)
        assert name in here.cluster.pods
        await until(lambda: not here.cluster.pods, seconds=150)
        assert here.cluster.called("delete") == 1


@virtual
async def test_a_stranger_by_the_name_of_one_that_waits(tmp_path: Path) -> None:
    async with scene(tmp_path, orphan_seconds=60) as here:
        one = attempt()
        pod = manifest(one, await here.order_of(one), here.settings)
        here.blobs.full = True
        await here.launcher.start([one])
        await asyncio.sleep(10)
        await here.cluster.create(pod)
        await until(lambda: not here.cluster.pods, seconds=200)
        assert here.ends == []


# -- how the cluster is ---------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["healthy", "watch"])
def test_each_sign_of_an_ill_api_server_counts(tmp_path: Path, what: str) -> None:
    @virtual
    async def run() -> None:
        async with scene(tmp_path, lost_seconds=40) as here:
            await here.runs(attempt())
            here.cluster.node("a", ready="Unknown")
            await asyncio.sleep(5)
            assert here.launcher.capacity().ill == "no node of it is ready"
            here.cluster.breaks(what, ApiDown("not well"))
            await asyncio.sleep(15)
            assert "not well" in here.launcher.capacity().ill
            await asyncio.sleep(200)
            assert not here.ends
            here.cluster.broken.clear()
            await here.told_of(Broke)

    run()


@virtual
async def test_a_hiccup_is_no_illness(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        here.cluster.breaks("healthy", ApiDown("not well"))
        await asyncio.sleep(1.5)
        assert not here.launcher.capacity().ill
        here.cluster.broken.clear()
        await asyncio.sleep(10)
        assert not here.launcher.capacity().ill


@virtual
async def test_a_recovery_is_believed_after_a_while(tmp_path: Path) -> None:
    """The watch is there again; what it has missed is on its way."""
    async with scene(tmp_path) as here:
        cluster = here.launcher._cluster
        assert cluster.well
        cluster.look("not well")
        assert not cluster.well
        cluster.look("")
        assert not cluster.well
        await asyncio.sleep(SETTLE_SECONDS)
        assert cluster.well


@virtual
async def test_what_is_free(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        here.cluster.node("b")
        await until(lambda: here.launcher.capacity().free.cpu == 8)
        assert here.launcher.capacity().allocatable.cpu == 4
        one = attempt(requests=Resources(cpu=3))
        name = await here.runs(one)
        assert here.launcher.capacity().free.cpu == 5
        here.cluster.ends(name, done(one))
        await until(lambda: here.launcher.capacity().free.cpu == 8)
        assert here.launcher.capacity().offer.secrets == ("token",)


# -- the launcher itself --------------------------------------------------------------------------


@virtual
async def test_a_log_is_rescued_when_the_answer_has_none(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        name = await here.runs(attempt())
        here.cluster.logs[name] = b"why"
        said: dict[str, Any] = {"t": "broke", "d": "d", "s": 1, "e": 2, "owner": "user"}
        said |= {"kind": "raised", "message": "m", "tb": "", "unreadable": []}
        here.cluster.ends(name, json.dumps(said), code=1)
        end = await here.told_of(Broke)
        assert end.failure.kind == "raised"
        assert await here.blobs.get(end.logs.stdout.uri) == b"why"


@virtual
async def test_cancelled_with_its_end_already_on_the_table(tmp_path: Path) -> None:
    """The engine is busy; when it asks, what it has cancelled is not told."""
    async with scene(tmp_path) as here:
        one, other = attempt(), attempt(node="m")
        name = await here.runs(one, other)
        here.busy = True
        here.cluster.runs(pod_name(other.key))
        await until(lambda: len(here.all(Started)) == 2)
        here.cluster.ends(name, done(one))
        await asyncio.sleep(5)
        await here.launcher.cancel([one.key])
        here.busy = False
        await asyncio.sleep(60)
        assert not here.ends
        assert name not in here.cluster.pods


@virtual
async def test_a_bug_in_an_end_still_ends_it(tmp_path: Path, caplog: Any) -> None:
    caplog.set_level(logging.CRITICAL)
    async with scene(tmp_path) as here:

        async def bug(*_: object) -> None:
            raise ZeroDivisionError

        here.launcher._ends.of = bug
        here.cluster.ends(await here.runs(attempt()), code=1)
        end = await here.told_of(Broke)
        assert "ZeroDivisionError" in end.failure.message


@virtual
async def test_a_broken_loop_is_told(tmp_path: Path) -> None:
    """Instead of a launcher that looks well and hears nothing."""
    here = Scene(tmp_path, (await anything(tmp_path)).settings)
    await here.launcher.open()
    batches = here.launcher.watch()
    await anext(batches)

    def bug(_: str) -> None:
        raise ZeroDivisionError

    here.launcher._cluster.look = bug
    with pytest.raises(ZeroDivisionError):
        await anext(batches)
    await here.launcher.close(kill=False)


async def anything(folder: Path) -> Scene:
    async with scene(folder) as here:
        return here


@virtual
async def test_closing(tmp_path: Path) -> None:
    """Without `kill` the next agent goes on; with it nothing runs any more."""
    for kill in (False, True):
        here = await anything(tmp_path)
        await here.launcher.open()
        await asyncio.sleep(1)
        name = await here.start(attempt())
        here.cluster.runs(name)
        await asyncio.sleep(1)
        await here.launcher.close(kill=kill)
        await asyncio.sleep(30)
        assert (name in here.cluster.pods) is not kill


@virtual
async def test_no_more_creates_at_once_than_asked_for(tmp_path: Path) -> None:
    async with scene(tmp_path, creates_at_once=3) as here:
        at_once, most = 0, 0
        create = here.cluster.create

        async def counted(manifest: Object) -> Object:
            nonlocal at_once, most
            at_once += 1
            most = max(most, at_once)
            await asyncio.sleep(1)
            at_once -= 1
            return await create(manifest)

        here.cluster.create = counted
        await here.launcher.start([attempt(node=f"n{i}") for i in range(30)])
        await until(lambda: len(here.cluster.pods) == 30)
        assert most == 3
