"""An attempt becomes one pod, whatever the API server says, does and does not say meanwhile."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from whimbrel.errors import NotFound, Refused, Unreachable
from whimbrel.spec import Artifact, Owner

from data_plane_agent.launcher import Broke, Finished, Started
from data_plane_agent.pods.api import ApiDown, ApiError, Denied, Invalid
from data_plane_agent.pods.codec import manifest, pod_name
from tests.data_plane_agent.pods.cluster_fake import QUOTA, Lost, Object
from tests.data_plane_agent.pods.scene import SETTINGS, TASK, Scene, attempt, done, scene
from tests.data_plane_agent.virtual_time import until, virtual


async def there_before(here: Scene, pod: Object, *, host: str = "") -> str:
    """A pod that this launcher knows nothing of, as from a create whose answer was lost."""
    made = await here.cluster.create(pod)
    if host:
        here.cluster.runs(made["metadata"]["name"], host=host)
    return made["metadata"]["uid"]


@virtual
async def test_an_attempt_runs_and_is_done(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        one = attempt()
        name = await here.start(one)
        assert (here.launcher.capacity().queued, here.told) == (1, [])
        here.cluster.runs(name)
        started = await here.told_of(Started)
        assert (started.key, started.host, started.avoided) == (one.key, "a", ())
        assert here.launcher.capacity().running == 1
        here.cluster.ends(name, done(one))
        end = await here.told_of(Finished)
        assert (end.key, end.input_digest, end.host) == (one.key, one.input_digest, "a")
        assert here.told == [started, end]
        assert (here.launcher.capacity().running, here.launcher.capacity().queued) == (0, 0)


@virtual
async def test_a_known_key_is_ignored(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        await here.launcher.start([attempt(), attempt()])
        await here.start(attempt())
        await asyncio.sleep(60)
        assert here.cluster.called("create") == 1


@virtual
async def test_nodes_written_alike_have_their_own_pods(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        await here.launcher.start([attempt(node=name) for name in ("a b", "a-b", "A-B")])
        await until(lambda: len(here.cluster.pods) == 3)


@virtual
async def test_a_create_without_an_answer(tmp_path: Path) -> None:
    """The pod is taken as it is, and may even have ended meanwhile."""
    async with scene(tmp_path) as here:
        one = attempt()
        here.cluster.faults = [Lost()]
        name = await here.start(one)
        uid = here.cluster.pods[name]["metadata"]["uid"]
        await until(lambda: here.cluster.called("create") == 2)
        here.cluster.runs(name)
        await here.told_of(Started)
        here.cluster.ends(name, done(one))
        await here.told_of(Finished)
        assert here.cluster.pods[name]["metadata"]["uid"] == uid
        assert here.cluster.called("delete") == 0


@virtual
async def test_a_pod_for_the_same_is_taken_over(tmp_path: Path) -> None:
    """Made by the agent before this one, after this one had asked what is there."""
    async with scene(tmp_path) as here:
        one = attempt()
        uid = await there_before(here, manifest(one, await here.order_of(one), here.settings))
        name = await here.start(one)
        await until(lambda: here.cluster.called("create") == 2)
        here.cluster.runs(name)
        await here.told_of(Started)
        here.cluster.ends(name, done(one))
        await here.told_of(Finished)
        assert here.cluster.pods[name]["metadata"]["uid"] == uid
        assert here.cluster.called("delete") == 0


@virtual
async def test_a_pod_for_something_else_gives_way(tmp_path: Path) -> None:
    """Nothing it says is of this attempt."""
    async with scene(tmp_path, grace_seconds=30) as here:
        other, one = attempt(inputs={"x": 2}), attempt()
        order = await here.order_of(other)
        uid = await there_before(here, manifest(other, order, here.settings), host="a")
        name = await here.start(one)

        def replaced() -> bool:
            pod = here.cluster.pods.get(name)
            return pod is not None and pod["metadata"]["uid"] != uid

        assert await until(replaced) >= 29
        assert here.told == []
        here.cluster.ends(name, done(one))
        end = await here.told_of(Finished)
        assert end.input_digest == one.input_digest


@virtual
async def test_a_pod_of_the_same_that_is_being_deleted_is_not_taken_over(tmp_path: Path) -> None:
    async with scene(tmp_path, grace_seconds=20) as here:
        one = attempt()
        pod = manifest(one, await here.order_of(one), here.settings)
        uid = await there_before(here, pod, host="a")
        name = pod["metadata"]["name"]
        await here.cluster.delete(name, uid=uid)
        await here.launcher.start([one])
        await until(lambda: here.cluster.pods.get(name, pod)["metadata"].get("uid", uid) != uid)
        assert here.told == []


@virtual
async def test_a_cluster_that_asks_for_patience(tmp_path: Path) -> None:
    """200 attempts, and 429 for each of the first 50 creates: all run, none is refused."""
    async with scene(tmp_path) as here:
        wait = ApiDown("too many requests", status=429, retry_after=7.0)
        here.cluster.faults = [wait] * 50
        began = asyncio.get_running_loop().time()
        await here.launcher.start([attempt(node=f"n{i}") for i in range(200)])
        await until(lambda: len(here.cluster.pods) == 200)
        assert asyncio.get_running_loop().time() - began >= 7
        assert here.cluster.called("create") == 250
        assert here.told == []


@virtual
async def test_quota_and_then_room(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        here.cluster.room = 0
        await here.launcher.start([attempt()])
        await asyncio.sleep(60)
        assert here.told == []
        assert here.launcher.capacity().queued == 1
        here.cluster.room = 1
        await until(lambda: here.cluster.pods, seconds=6)
        here.cluster.runs(pod_name(attempt().key))
        started = await here.told_of(Started)
        await asyncio.sleep(300)
        assert here.told == [started]


@pytest.mark.parametrize(
    ("error", "owner", "kind"),
    [
        (Denied("admission webhook refused the image", status=403), Owner.CONFIG, "admission"),
        (
            Denied('admission webhook "w" denied the request: it is being terminated', status=403),
            Owner.CONFIG,
            "admission",
        ),
        (Invalid("spec.containers[0].env[0].name: Invalid value"), Owner.CONFIG, "pod_config"),
    ],
)
def test_what_no_waiting_helps(tmp_path: Path, error: Exception, owner: Owner, kind: str) -> None:
    @virtual
    async def run() -> None:
        async with scene(tmp_path) as here:
            here.cluster.faults = [error]
            await here.launcher.start([attempt()])
            end = await here.told_of(Broke, seconds=5)
            assert (end.failure.owner, end.failure.kind) == (owner, kind)
            assert str(error) in end.failure.message
            await asyncio.sleep(60)
            assert here.told == [end]
            assert here.cluster.called("create") == 1

    run()


@pytest.mark.parametrize(
    ("settings", "task", "kind", "text"),
    [
        ({"images": ("ours/*",)}, {"container_image": "theirs/x:1"}, "image", "ours/*"),
        ({}, {"secrets": ("password",)}, "pod_config", "password"),
        ({"images": ("ours/*",)}, {"container_image": "ours/x:1"}, "", ""),
        ({"images": ("ours/*",)}, {}, "", ""),
        ({}, {"container_image": "theirs/x:1", "secrets": ("token",)}, "", ""),
    ],
)
def test_what_this_cluster_does_not_run(
    tmp_path: Path, settings: Any, task: Any, kind: str, text: str
) -> None:
    @virtual
    async def run() -> None:
        async with scene(tmp_path, **settings) as here:
            await here.launcher.start([attempt(task=replace(TASK, **task))])
            if not kind:
                await until(lambda: here.cluster.pods)
                return
            end = await here.told_of(Broke, seconds=5)
            assert (end.failure.owner, end.failure.kind) == (Owner.CONFIG, kind)
            assert text in end.failure.message
            assert not here.cluster.called("create")

    run()


@virtual
async def test_any_other_error_is_waited_for(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        here.cluster.faults = [ApiError("teapot", status=418)]
        await here.start(attempt())
        assert here.told == []


@virtual
async def test_a_store_that_takes_nothing_is_waited_for(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        here.blobs.full = True
        await here.launcher.start([attempt()])
        await asyncio.sleep(30)
        assert not here.cluster.pods
        here.blobs.full = False
        await until(lambda: here.cluster.pods)
        assert here.told == []


@virtual
async def test_an_input_that_no_key_opens(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        far = Artifact("s3://far/k", "0" * 64, 1, "eu")
        fields = {"uri": far.uri, "sha256": far.sha256, "bytes": 1, "region": "eu", "kind": "file"}
        await here.launcher.start([attempt(inputs={"x": {"$artifact": fields}})])
        end = await here.told_of(Broke)
        assert (end.failure.owner, end.failure.kind) == (Owner.SYSTEM, "unreadable_input")
        assert end.unreadable == (far.uri,)


@virtual
async def test_a_bundle_that_comes_late_and_one_that_never_does(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        answers: list[Exception] = [Unreachable("no router"), NotFound("no such bundle")]

        async def fetch(digest: str) -> Path:
            raise answers.pop(0)

        here.orders._fetch_archive = fetch
        await here.launcher.start([attempt()])
        end = await here.told_of(Broke)
        assert (end.failure.owner, end.failure.kind) == (Owner.CONFIG, "bundle")
        assert not answers


@virtual
async def test_hosts_to_avoid(tmp_path: Path) -> None:
    """Said is what was kept: the one it landed on was not avoided."""
    async with scene(tmp_path) as here:
        here.cluster.node("b")
        name = await here.start(attempt(avoid=("a", "b", "c", "d")))
        affinity = here.cluster.pods[name]["spec"]["affinity"]["nodeAffinity"]
        assert "requiredDuringSchedulingIgnoredDuringExecution" not in affinity
        here.cluster.runs(name, host="b")
        started = await here.told_of(Started)
        assert (started.host, started.avoided) == ("b", ("a", "c"))


@virtual
async def test_an_api_server_that_is_away_at_first(tmp_path: Path) -> None:
    here = Scene(tmp_path, SETTINGS)
    here.cluster.fail(ApiDown("connection refused"))
    await here.open(wait=False)
    await here.launcher.start([attempt()])
    await asyncio.sleep(30)
    assert "refused" in here.launcher.capacity().ill
    here.cluster.fail(None)
    await until(lambda: here.found is not None and here.cluster.pods)
    here.cluster.runs(pod_name(attempt().key))
    await here.told_of(Started)
    await until(lambda: not here.launcher.capacity().ill, seconds=15)
    await here.stop()


@virtual
async def test_rights_that_could_not_be_asked_for_are_asked_for_later(tmp_path: Path) -> None:
    here = Scene(tmp_path, SETTINGS)
    here.cluster.fail(ApiDown("connection refused"))
    here.cluster.denied = "create"
    await here.launcher.open()
    engine = asyncio.create_task(here.listen())
    await asyncio.sleep(30)
    assert not engine.done()
    here.cluster.fail(None)
    await until(engine.done, seconds=10)
    assert isinstance(error := engine.exception(), Refused)
    assert "may not create pods" in error.message
    await here.launcher.close(kill=False)


def test_the_quota_s_words() -> None:
    assert Denied(QUOTA).over_quota
