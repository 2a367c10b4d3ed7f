"""How attempts end: by their answer, by what happened to their pod, by being given up;
each once, with what they left."""

import asyncio
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from whimbrel.spec import Artifact, Owner, Resources

from data_plane_agent.launcher import Broke, Finished, Saved, Started
from data_plane_agent.pods.api import ApiDown
from data_plane_agent.pods.ends import ANSWER_SECONDS
from data_plane_agent.pods.failures import BAD_IMAGE_SECONDS, CREATE_SECONDS
from tests.data_plane_agent.pods.scene import Scene, attempt, done, scene
from tests.data_plane_agent.virtual_time import until, virtual


def owner(end: Broke) -> tuple[Owner, str]:
    return end.failure.owner, end.failure.kind


# -- by itself ------------------------------------------------------------------------------------


@virtual
async def test_an_end_that_no_start_was_seen_of(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        one = attempt()
        here.cluster.ends(await here.start(one), done(one))
        await until(lambda: here.ends)
        assert [type(event) for event in here.told] == [Started, Finished]


@virtual
async def test_an_answer_that_says_what_broke(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        name = await here.runs(attempt())
        said = {"t": "broke", "d": "d", "s": 1, "e": 2, "owner": "user", "kind": "raised",
                "message": "ValueError", "tb": "", "unreadable": []}  # fmt: skip
        here.cluster.ends(name, json.dumps(said), code=1)
        end = await here.told_of(Broke)
        assert (owner(end), end.host, end.failure.node) == ((Owner.USER, "raised"), "a", "n")


@virtual
async def test_an_answer_in_the_store_that_is_away(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        one = attempt()
        name = await here.runs(one)
        folder = here.cluster.pods[name]["metadata"]["annotations"]["whimbrel.dev/order-folder"]
        stored = await here.blobs.put(f"{folder}/result.json", done(one).encode())
        here.blobs.away = True
        said = {"t": "stored", "uri": stored.uri, "sha256": stored.sha256, "bytes": stored.bytes}
        here.cluster.ends(name, json.dumps(said))
        await asyncio.sleep(ANSWER_SECONDS / 2)
        assert not here.ends
        here.blobs.away = False
        assert isinstance(await here.told_of(Finished, seconds=5), Finished)
        assert len(here.ends) == 1


@virtual
async def test_an_answer_in_a_store_that_stays_away(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        one = attempt()
        name = await here.runs(one)
        folder = here.cluster.pods[name]["metadata"]["annotations"]["whimbrel.dev/order-folder"]
        stored = await here.blobs.put(f"{folder}/result.json", done(one).encode())
        here.blobs.away = True
        said = {"t": "stored", "uri": stored.uri, "sha256": stored.sha256, "bytes": stored.bytes}
        here.cluster.ends(name, json.dumps(said))
        await here.told_of(Broke, seconds=3 * ANSWER_SECONDS)


@virtual
async def test_a_pod_that_says_nothing(tmp_path: Path) -> None:
    """Its log is rescued: it is all that tells why."""
    async with scene(tmp_path) as here:
        name = await here.runs(attempt())
        here.cluster.logs[name] = b"last words"
        here.cluster.ends(name, code=3)
        end = await here.told_of(Broke)
        assert owner(end) == (Owner.USER, "exited")
        assert end.logs.stdout is not None
        assert await here.blobs.get(end.logs.stdout.uri) == b"last words"


@virtual
async def test_too_much_memory(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        one, other = attempt(limits=Resources(mem_bytes=2**20)), attempt(node="unlimited")
        here.cluster.ends(await here.runs(one), code=137, reason="OOMKilled")
        assert owner(await here.told_of(Broke)) == (Owner.USER, "oom")
        here.told.clear()
        here.cluster.ends(await here.runs(other), code=137, reason="OOMKilled")
        assert owner(await here.told_of(Broke)) == (Owner.SYSTEM, "evicted")  # its node had none


# -- checkpoints ----------------------------------------------------------------------------------


def checkpoint(here: Scene, name: str) -> Artifact:
    folder = here.cluster.pods[name]["metadata"]["annotations"]["whimbrel.dev/order-folder"]
    return Artifact(f"s3://bucket/{folder}/1-0/checkpoint", "0" * 64, 3, "us-east", "checkpoint")


@virtual
async def test_a_checkpoint_is_told_before_the_end(tmp_path: Path) -> None:
    """Also the one that the answer brings, and the one whose notice nobody has read yet."""
    async with scene(tmp_path) as here:
        one, other = attempt(), attempt(node="m")
        name, its = await here.runs(one), await here.start(other)
        saved = {"artifact": asdict(checkpoint(here, name)), "at": 5}
        here.cluster.ends(name, done(one, saved=saved))
        await here.told_of(Finished)
        assert [type(event) for event in here.told] == [Started, Saved, Finished]
        here.told.clear()
        notice = {"t": "saved", "artifact": asdict(checkpoint(here, its)), "at": 5}
        await here.blobs.put(f"mailbox/alpha/{its}/1", json.dumps(notice).encode())
        here.cluster.ends(its, code=137)
        await here.told_of(Broke)
        assert [type(event) for event in here.told] == [Started, Saved, Broke]


@virtual
async def test_a_checkpoint_of_somebody_else(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        one, other = attempt(), attempt(node="m")
        name, its = await here.runs(one), await here.start(other)
        notice = {"t": "saved", "artifact": asdict(checkpoint(here, its)), "at": 5}
        await here.blobs.put(f"mailbox/alpha/{name}/1", json.dumps(notice).encode())
        await asyncio.sleep(10)
        assert not here.all(Saved)


# -- by what happens to it ------------------------------------------------------------------------


@virtual
async def test_a_pod_that_somebody_deletes(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        name = await here.runs(attempt())
        pod = here.cluster.pods[name]
        await here.cluster.delete(name, uid=pod["metadata"]["uid"], grace_seconds=5)
        assert owner(await here.told_of(Broke)) == (Owner.SYSTEM, "pod_lost")
        await asyncio.sleep(120)
        assert len(here.ends) == 1


@virtual
async def test_a_pending_pod_that_somebody_deletes(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        here.cluster.remove(await here.start(attempt()))
        assert owner(await here.told_of(Broke)) == (Owner.SYSTEM, "pod_lost")
        assert len(here.told) == 1


@virtual
async def test_a_pod_deleted_while_the_api_server_was_away(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        name = await here.runs(attempt())
        here.cluster.fail(ApiDown("connection refused"))
        here.cluster.pods.pop(name)
        await asyncio.sleep(120)
        assert not here.ends
        here.cluster.fail(None)
        here.cluster._history.clear()  # too old to be replayed
        assert owner(await here.told_of(Broke)) == (Owner.SYSTEM, "pod_lost")


@virtual
async def test_a_pod_made_anew_by_another_hand(tmp_path: Path) -> None:
    """Same name, another uid: what it says is not of this attempt."""
    async with scene(tmp_path) as here:
        one = attempt()
        name = await here.runs(one)
        old = here.cluster.pods[name]
        here.cluster.remove(name)
        again = {"metadata": {**old["metadata"]}, "spec": old["spec"]}
        await here.cluster.create(again)
        here.cluster.ends(name, done(one))
        assert owner(await here.told_of(Broke)) == (Owner.SYSTEM, "pod_lost")
        assert len(here.ends) == 1


@virtual
async def test_an_evicted_pod(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        name = await here.runs(attempt())
        target = {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}
        here.cluster.set(name, conditions=[target])
        here.cluster.ends(name, code=143)
        end = await here.told_of(Broke)
        assert (owner(end), end.host) == ((Owner.SYSTEM, "evicted"), "a")


# -- given up -------------------------------------------------------------------------------------


@virtual
async def test_a_node_that_is_not_heard(tmp_path: Path) -> None:
    async with scene(tmp_path, lost_seconds=40) as here:
        await here.runs(attempt())
        here.cluster.node("a", ready="Unknown")
        await asyncio.sleep(30)
        here.cluster.node("a")
        await asyncio.sleep(60)
        assert not here.ends
        here.cluster.node("a", ready="Unknown")
        await asyncio.sleep(38)
        assert not here.ends
        assert owner(await here.told_of(Broke, seconds=5)) == (Owner.SYSTEM, "node_lost")


@virtual
async def test_a_node_that_is_gone(tmp_path: Path) -> None:
    async with scene(tmp_path, lost_seconds=40) as here:
        here.cluster.node("b")
        name = await here.start(attempt())
        here.cluster.runs(name, host="b")
        await here.told_of(Started)
        node = here.cluster.items["nodes"].pop("b")
        here.cluster._told("DELETED", "nodes", node)
        assert owner(await here.told_of(Broke)) == (Owner.SYSTEM, "node_lost")


@virtual
async def test_no_death_is_believed_of_an_ill_api_server(tmp_path: Path) -> None:
    async with scene(tmp_path, lost_seconds=40) as here:
        one = attempt()
        name = await here.runs(one)
        here.cluster.node("a", ready="Unknown")
        await asyncio.sleep(5)
        here.cluster.fail(ApiDown("no answer"))
        await asyncio.sleep(600)
        assert not here.ends
        assert "no answer" in here.launcher.capacity().ill
        here.cluster.node("a")
        here.cluster.ends(name, done(one))
        here.cluster.fail(None)
        await here.told_of(Finished)
        assert len(here.ends) == 1


@virtual
async def test_a_node_heard_again_with_the_api_server(tmp_path: Path) -> None:
    """What passed while nobody could tell does not count: its patience begins anew."""
    async with scene(tmp_path, lost_seconds=40) as here:
        await here.runs(attempt())
        here.cluster.node("a", ready="Unknown")
        await asyncio.sleep(5)
        here.cluster.fail(ApiDown("no answer"))
        await asyncio.sleep(600)
        here.cluster.fail(None)
        await asyncio.sleep(20)
        here.cluster.node("a")
        await asyncio.sleep(60)
        assert not here.ends


@pytest.mark.parametrize(
    ("reason", "message", "seconds", "kind"),
    [
        ("ErrImagePull", "r/x:1: not found", BAD_IMAGE_SECONDS, "image"),
        ("ErrImagePull", "i/o timeout", 300, "image"),
        ("InvalidImageName", "", 0, "image"),
        ("CreateContainerConfigError", "secret not found", CREATE_SECONDS, "pod_config"),
    ],
)
def test_a_container_that_cannot_begin(
    tmp_path: Path, reason: str, message: str, seconds: float, kind: str
) -> None:
    @virtual
    async def run() -> None:
        async with scene(tmp_path, image_seconds=300) as here:
            name = await here.start(attempt())
            here.cluster.waits(name, "ContainerCreating")
            await asyncio.sleep(1)
            began = asyncio.get_running_loop().time()
            backs_off = reason == "ErrImagePull"
            while not here.ends:
                here.cluster.waits(name, reason, message)
                await asyncio.sleep(3)
                if backs_off and not here.ends:
                    here.cluster.waits(name, "ImagePullBackOff", "Back-off pulling image")
                    await asyncio.sleep(5)
            end = here.ends[0]
            assert isinstance(end, Broke)
            assert owner(end) == (Owner.CONFIG, kind)
            assert message in end.failure.message
            assert seconds <= asyncio.get_running_loop().time() - began <= seconds + 15
            assert (here.launcher.capacity().offer.refused_images == ("whimbrel:1",)) == (
                kind == "image"
            )
            await until(lambda: not here.cluster.pods)
            await asyncio.sleep(660)
            assert not here.launcher.capacity().offer.refused_images

    run()


@virtual
async def test_an_image_that_comes_late(tmp_path: Path) -> None:
    async with scene(tmp_path, image_seconds=300) as here:
        name = await here.start(attempt())
        here.cluster.waits(name, "ErrImagePull", "i/o timeout")
        await asyncio.sleep(250)
        here.cluster.runs(name)
        await asyncio.sleep(250)
        assert [type(event) for event in here.told] == [Started]


# -- afterwards -----------------------------------------------------------------------------------


@virtual
async def test_a_pod_lingers_for_people(tmp_path: Path) -> None:
    async with scene(tmp_path, linger_seconds=50) as here:
        one, other = attempt(), attempt(node="m")
        name = await here.runs(one, other)
        here.cluster.ends(name, done(one))
        await here.told_of(Finished)
        here.cluster.runs(next(n for n in here.cluster.pods if n != name))
        await until(lambda: len(here.all(Started)) == 2)
        await asyncio.sleep(45)
        assert name in here.cluster.pods
        await until(lambda: name not in here.cluster.pods, seconds=10)
        assert len(here.cluster.pods) == 1


@virtual
async def test_pods_that_nobody_owns(tmp_path: Path) -> None:
    """Deleted once they are old: a young one may be of a create whose answer is on its way."""
    async with scene(tmp_path, orphan_seconds=60) as here:
        own = await here.runs(attempt())
        stranger: dict[str, Any] = json.loads(json.dumps(here.cluster.pods[own]))
        stranger["metadata"]["name"] = "w-stranger"
        stranger["metadata"]["annotations"]["whimbrel.dev/node"] = "other"
        await here.cluster.create(stranger)
        here.cluster.runs("w-stranger")
        made = here.cluster.pods["w-stranger"]["metadata"]
        await asyncio.sleep(55)
        assert "deletionTimestamp" not in made
        await until(lambda: "w-stranger" not in here.cluster.pods, seconds=200)
        assert own in here.cluster.pods
        assert [event.key for event in here.all(Started)] == [attempt().key]
        assert not here.ends


@virtual
async def test_pods_are_not_swept_by_an_old_picture(tmp_path: Path) -> None:
    async with scene(tmp_path, orphan_seconds=60) as here:
        own = await here.runs(attempt())
        stranger: dict[str, Any] = json.loads(json.dumps(here.cluster.pods[own]))
        stranger["metadata"]["name"] = "w-stranger"
        await here.cluster.create(stranger)
        await asyncio.sleep(1)
        here.cluster.fail(ApiDown("no answer"))
        await asyncio.sleep(600)
        assert not here.cluster.called("delete")


@virtual
async def test_the_pod_of_a_failure_without_a_pod_s_end_is_deleted(tmp_path: Path) -> None:
    """A node that comes back must not go on with what another does already."""
    async with scene(tmp_path, lost_seconds=40) as here:
        name = await here.runs(attempt())
        here.cluster.node("a", ready="Unknown")
        await here.told_of(Broke)
        await until(lambda: name not in here.cluster.pods, seconds=120)
        assert len(here.ends) == 1
