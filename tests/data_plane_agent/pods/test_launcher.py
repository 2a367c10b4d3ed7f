"""The pod launcher over a cluster in memory: each way to begin, to end, to wait, to be stopped."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from whimbrel.spec import Owner, Resources

from data_plane_agent.launcher import Broke, Finished, Found, Saved, Started, Unplaceable
from data_plane_agent.pods.api import ApiDown, Denied, Invalid
from tests.data_plane_agent.pods.world import World, attempt, broke, done, node, world

pytestmark = pytest.mark.anyio


@pytest.fixture
async def w(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as made:
        assert await made.hear() == Found({})
        yield made


async def test_an_attempt_is_a_pod_and_its_answer_the_outputs(w: World) -> None:
    one = attempt()
    name = await w.start(one)
    w.api.run(name)
    assert isinstance(started := await w.hear(), Started)
    assert (started.key, started.host) == (one.key, "n1")
    assert (w.launcher.capacity().running, w.launcher.capacity().queued) == (1, 0)
    w.api.end(name, done())
    assert isinstance(end := await w.hear(), Finished)
    assert (end.key, end.outputs.value, end.host) == (one.key, '{"o0":1}', "n1")
    w.api.run(await w.start(attempt("other")))
    await w.hear()
    await w.until(lambda: name not in w.api.pods)


async def test_an_answer_that_says_broke_keeps_its_owner(w: World) -> None:
    name = await w.start(attempt())
    w.api.end(name, broke(), code=1)
    assert isinstance(await w.hear(), Started)
    assert isinstance(end := await w.hear(), Broke)
    assert (end.failure.owner, end.failure.kind) == (Owner.USER, "raised")


async def test_a_known_key_is_ignored(w: World) -> None:
    await w.start(attempt())
    await w.launcher.start([attempt()])
    await w.quiet()
    assert [verb for verb, _ in w.api.calls].count("create") == 1


# -- making --------------------------------------------------------------------------------------


async def test_a_create_whose_answer_was_lost_makes_no_second_pod(w: World) -> None:
    w.api.lost["create"] = 1
    name = await w.start(attempt())
    await w.until(lambda: ("get", name) in w.api.calls)
    w.api.run(name)
    assert isinstance(await w.hear(), Started)
    assert list(w.api.pods) == [name]
    assert ("delete", name) not in w.api.calls


async def test_a_pod_of_that_name_for_something_else_is_replaced(w: World) -> None:
    name = await w.start(attempt())
    other = w.api.pods[name]
    await w.launcher.cancel([attempt().key])
    await w.until(lambda: not w.api.pods)
    other["metadata"]["annotations"]["whimbrel.dev/order-digest"] = "another"
    other["metadata"]["uid"] = "uid-other"
    w.api.put("pods", other)
    await w.launcher.start([attempt()])
    await w.until(lambda: name in w.api.pods and w.api.pods[name]["metadata"]["uid"] != "uid-other")
    w.api.run(name)
    assert isinstance(await w.hear(), Started)


async def test_a_pod_of_that_name_that_is_going_is_not_taken(w: World) -> None:
    name = await w.start(attempt())
    other = w.api.pods[name]
    await w.launcher.cancel([attempt().key])
    await w.until(lambda: not w.api.pods)
    other["metadata"] |= {"uid": "uid-other", "deletionTimestamp": "2026-01-01T00:00:00Z"}
    w.api.put("pods", other)
    w.api.run(name)
    await w.launcher.start([attempt()])
    await w.until(lambda: ("get", name) in w.api.calls)
    await w.quiet()
    w.api.remove("pods", name)
    await w.until(lambda: name in w.api.pods)
    w.api.run(name)
    assert isinstance(await w.hear(), Started)


async def test_no_quota_is_waited_for_and_said(w: World) -> None:
    full = 'pods "w" is forbidden: exceeded quota: all, requested: pods=1, used: pods=5'
    w.api.refuse["create"] = [Denied(full, status=403)] * 1000
    one = attempt()
    await w.launcher.start([one])
    await w.until(lambda: len(w.api.refuse["create"]) < 997)
    await w.quiet()
    assert w.launcher.capacity().queued == 1
    w.now += 121
    assert isinstance(told := await w.hear(), Unplaceable)
    assert "exceeded quota" in told.message
    w.now += 121
    await w.quiet()
    w.api.refuse["create"] = []
    await w.start(one)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (Denied("violates PodSecurity", status=403), "admission"),
        (Invalid("spec.x: invalid", status=422), "pod_config"),
    ],
)
async def test_a_refusal_for_good_is_the_configurations(
    w: World, error: Denied | Invalid, kind: str
) -> None:
    w.api.refuse["create"] = [error]
    await w.launcher.start([attempt()])
    assert isinstance(told := await w.hear(), Broke)
    assert (told.failure.owner, told.failure.kind) == (Owner.CONFIG, kind)
    assert error.message in told.failure.message


async def test_too_many_requests_slow_two_hundred_pods_down_and_lose_none(w: World) -> None:
    w.api.refuse["create"] = [ApiDown("too many requests", status=429, retry_after=1.0)] * 150
    many = [attempt(f"n{i}") for i in range(200)]
    await w.start(*many)
    assert len(w.api.pods) == 200
    assert w.launcher.capacity().queued == 200


async def test_a_silent_api_server_keeps_running_work_and_is_ill(w: World) -> None:
    name = await w.start(attempt())
    w.api.run(name)
    await w.hear()
    w.api.go_down()
    await w.launcher.start([attempt("later")])
    await w.until(lambda: w.launcher._cluster._ill_since is not None)
    w.now += 60
    assert "refused" in w.launcher.capacity().ill
    await w.quiet()
    w.api.down = False
    await w.until(lambda: len(w.api.pods) == 2)
    await w.until(lambda: not w.launcher.capacity().ill)
    w.api.end(name, done())
    assert isinstance(await w.hear(), Finished)


async def test_images_and_secrets_that_are_not_here_are_said_at_once(tmp_path: Path) -> None:
    async with world(tmp_path, images=("ours/*",), secrets={"token": "team/token"}) as w:
        await w.hear()
        assert w.launcher.capacity().offer is not None
        for one, kind in (
            (attempt(container_image="theirs/x:1"), "image"),
            (attempt("m", secrets=("other",)), "pod_config"),
        ):
            await w.launcher.start([one])
            assert isinstance(told := await w.hear(), Broke)
            assert (told.failure.owner, told.failure.kind) == (Owner.CONFIG, kind)
        await w.start(attempt("o", container_image="ours/x:1", secrets=("token",)))


# -- waiting -------------------------------------------------------------------------------------


def unschedulable(message: str) -> dict[str, object]:
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
    return {"conditions": [condition | {"message": message}]}


async def test_no_room_is_told_once_in_the_schedulers_words(w: World) -> None:
    name = await w.start(attempt())
    w.api.change(name, **unschedulable("0/2 nodes are available: 2 Insufficient cpu."))
    await w.until(lambda: w.launcher._held[name].no_room)
    await w.quiet()
    w.now += 121
    assert isinstance(told := await w.hear(), Unplaceable)
    assert told.message == "0/2 nodes are available: 2 Insufficient cpu."
    w.now += 121
    await w.quiet()
    w.api.run(name)
    assert isinstance(await w.hear(), Started)


async def test_an_image_that_does_not_exist_is_refused_and_not_offered(w: World) -> None:
    name = await w.start(attempt(container_image="here/not:1"))
    for _ in range(5):  # the two take turns: the time must go on
        w.api.wait_for(name, "ErrImagePull", "here/not:1: not found")
        await w.until(lambda: w.launcher._held[name].stuck_on == "image")
        w.now += 20
        w.api.wait_for(name, "ImagePullBackOff", "Back-off pulling image")
    assert isinstance(told := await w.hear(), Broke)
    assert (told.failure.owner, told.failure.kind) == (Owner.CONFIG, "image")
    assert "not found" in told.failure.message
    offer = w.launcher.capacity().offer
    assert offer is not None
    assert offer.refused_images == ("here/not:1",)
    w.now += 601
    offer = w.launcher.capacity().offer
    assert offer is not None
    assert offer.refused_images == ()


# -- ends of the platform's making ---------------------------------------------------------------


async def running(w: World, **more: object) -> str:
    name = await w.start(attempt(**more))  # pyright: ignore[reportArgumentType]
    w.api.run(name)
    assert isinstance(await w.hear(), Started)
    return name


async def test_a_pod_deleted_behind_our_back_is_the_platforms_failure(w: World) -> None:
    name = await running(w)
    w.api.remove("pods", name)
    assert isinstance(told := await w.hear(), Broke)
    assert (told.failure.owner, told.failure.kind, told.host) == (Owner.SYSTEM, "pod_lost", "n1")


async def test_a_pod_that_vanished_while_no_watch_was_there_is_missed(w: World) -> None:
    await w.until(lambda: len(w.api._watches) == 2)
    w.api.go_deaf()
    name = await w.start(attempt())
    await w.until(lambda: w.launcher._held[name].uid)
    del w.api.pods[name]
    await w.quiet()
    w.now += 31
    assert isinstance(told := await w.hear(), Broke)
    assert told.failure.kind == "pod_lost"


async def test_a_silent_node_loses_its_pods_only_after_a_while(w: World) -> None:
    name = await running(w)
    w.api.put("nodes", node("n1", ready="Unknown"))
    await w.until(lambda: w.launcher._held[name].silent_since)
    w.now += 39
    await w.quiet()
    w.now += 2
    assert isinstance(told := await w.hear(), Broke)
    assert (told.failure.owner, told.failure.kind, told.host) == (Owner.SYSTEM, "node_lost", "n1")
    capacity = w.launcher.capacity()
    assert capacity.allocatable.cpu == 4
    assert capacity.free.cpu == 4


async def test_a_node_is_not_lost_while_the_api_server_is_not_heard(w: World) -> None:
    name = await running(w)
    w.api.put("nodes", node("n1", ready="Unknown"))
    await w.until(lambda: w.launcher._held[name].silent_since)
    w.api.go_down()
    await w.until(lambda: not w.launcher._cluster.well)
    w.now += 100
    await w.quiet()


async def test_a_hot_pod_is_told_with_its_limit_and_its_log_is_kept(w: World) -> None:
    name = await running(w, limits=Resources(mem_bytes=96 << 20))
    w.api.logs[name] = b"growing\n"
    w.api.end(name, code=137, reason="OOMKilled")
    assert isinstance(told := await w.hear(), Broke)
    assert (told.failure.owner, told.failure.kind) == (Owner.USER, "oom")
    assert "96 MiB" in told.failure.message
    assert told.logs.stdout is not None
    assert await w.store.blobs.get(told.logs.stdout.uri) == b"growing\n"


async def test_the_last_checkpoint_is_told_before_the_end(w: World) -> None:
    name = await running(w)
    folder = w.launcher._held[name].folder
    artifact = await w.store.blobs.put(f"{folder}/1-0/checkpoint", b"17")
    fields = {name: getattr(artifact, name) for name in artifact.__dataclass_fields__}
    w.api.end(
        name, broke("system", "interrupted") | {"saved": {"artifact": fields, "at": 5}}, code=1
    )
    assert isinstance(told := await w.hear(), Saved)
    assert told.artifact == artifact
    assert isinstance(await w.hear(), Broke)


async def test_a_notice_in_the_mailbox_is_a_saved_checkpoint(w: World) -> None:
    name = await running(w)
    folder = w.launcher._held[name].folder
    artifact = await w.store.blobs.put(f"{folder}/1-0/checkpoint", b"17")
    fields = {name: getattr(artifact, name) for name in artifact.__dataclass_fields__}
    notice = json.dumps({"t": "saved", "artifact": fields, "at": 5}).encode()
    await w.store.blobs.put(f"mailbox/alpha/{name}/1", notice)
    assert isinstance(told := await w.hear(), Saved)
    assert told.artifact == artifact


async def test_hosts_are_avoided_and_said_to_be(w: World) -> None:
    name = await w.start(attempt(avoid=("n1", "n2", "n3", "n4")))
    spec = w.api.pods[name]["spec"]["affinity"]["nodeAffinity"]
    (preferred,) = spec["preferredDuringSchedulingIgnoredDuringExecution"]
    assert preferred["preference"]["matchExpressions"][0]["values"] == ["n1", "n2", "n3"]
    w.api.run(name, "n2")
    assert isinstance(told := await w.hear(), Started)
    assert told.avoided == ("n1", "n3")


# -- logs ----------------------------------------------------------------------------------------


async def test_a_running_pods_log_is_read_in_parts(w: World) -> None:
    await w.start(attempt())
    assert await w.launcher.read_log(attempt().key, "stdout", offset=0, limit=5) == (b"", False)
    name = next(iter(w.api.pods))
    w.api.logs[name] = b"hello from a pod"
    w.api.run(name)
    await w.hear()
    key = attempt().key
    assert await w.launcher.read_log(key, "stdout", offset=0, limit=5) == (b"hello", False)
    assert await w.launcher.read_log(key, "stdout", offset=6, limit=99) == (b"from a pod", False)
    assert await w.launcher.read_log(key, "stderr", offset=0, limit=99) == (b"", True)
    assert [verb for verb, _ in w.api.calls].count("log") == 1
    w.now += 61
    await w.until(lambda: not w.launcher._logs._taps)


async def test_the_log_of_a_lost_pod_is_what_its_reader_saw(w: World) -> None:
    name = await running(w)
    w.api.logs[name] = b"seen"
    await w.launcher.read_log(attempt().key, "stdout", offset=0, limit=9)
    w.api.refuse["log"] = [ApiDown("the node does not answer")]
    w.api.remove("pods", name)
    assert isinstance(told := await w.hear(), Broke)
    assert told.logs.stdout is not None
    assert await w.store.blobs.get(told.logs.stdout.uri) == b"seen"
