"""An agent that is killed and started anew: its memory is in the cluster; nothing is lost, nothing
is told or done twice."""

import asyncio
from pathlib import Path

from data_plane_agent.launcher import Broke, Finished, Started
from data_plane_agent.pods.codec import manifest
from tests.data_plane_agent.pods.scene import attempt, done, scene
from tests.data_plane_agent.virtual_time import until, virtual


@virtual
async def test_a_pending_pod(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        one = attempt()
        name = await here.start(one)
        await here.restart()
        assert here.found == {one.key: one.input_digest}
        assert here.launcher.capacity().queued == 1
        here.cluster.runs(name)
        await here.told_of(Started)
        here.cluster.ends(name, done(one))
        await here.told_of(Finished)
        assert [type(event) for event in here.told] == [Started, Finished]
        assert here.cluster.called("create") == 1


@virtual
async def test_a_running_pod(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        one = attempt()
        name = await here.runs(one)
        await here.restart()
        assert here.found == {one.key: one.input_digest}
        await here.launcher.start([one])
        await asyncio.sleep(30)
        here.cluster.ends(name, done(one))
        await here.told_of(Finished)
        assert [type(event) for event in here.told] == [Started, Finished]
        assert here.cluster.called("create") == 1
        await until(lambda: not here.cluster.pods)


@virtual
async def test_a_pod_that_ended_meanwhile(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        one = attempt()
        name = await here.runs(one)
        await here.stop()
        here.cluster.ends(name, done(one))
        here.launcher, here.orders = here._launcher()
        here.found, here.told = None, []
        await here.open()
        assert here.found == {one.key: one.input_digest}
        await here.told_of(Finished)
        assert len(here.ends) == 1


@virtual
async def test_an_end_that_was_told_is_not_told_again(tmp_path: Path) -> None:
    """Its pod lingers; the engine has asked for more, so it has taken the end."""
    async with scene(tmp_path, linger_seconds=100) as here:
        one = attempt()
        here.cluster.ends(await here.runs(one), done(one))
        await here.told_of(Finished)
        await here.restart()
        assert here.found == {}
        await until(lambda: not here.cluster.pods, seconds=110)
        assert here.told == []


@virtual
async def test_two_attempts_of_one_node(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        first, second = attempt(1), attempt(2, epoch=2)
        name = await here.runs(first, second)
        await until(lambda: len(here.cluster.pods) == 2)
        await here.restart()
        assert here.found == {one.key: one.input_digest for one in (first, second)}
        await here.launcher.cancel([first.key])
        await until(lambda: name not in here.cluster.pods)
        assert len(here.cluster.pods) == 1
        assert not here.ends


@virtual
async def test_a_pod_that_somebody_is_deleting(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        name = await here.runs(attempt())
        uid = here.cluster.pods[name]["metadata"]["uid"]
        await here.cluster.delete(name, uid=uid, grace_seconds=20)
        await here.restart()
        end = await here.told_of(Broke)
        assert end.failure.kind == "pod_lost"
        assert len(here.ends) == 1


@virtual
async def test_a_cancelled_pod_stays_cancelled(tmp_path: Path) -> None:
    """Killed in between: the note on the disk is what the next agent goes by."""
    async with scene(tmp_path) as here:
        name = await here.runs(attempt())
        await here.launcher.cancel([attempt().key])
        await here.restart()
        assert here.found == {}
        await until(lambda: name not in here.cluster.pods)
        assert here.told == []


@virtual
async def test_killed_between_the_create_and_its_answer(tmp_path: Path) -> None:
    """The pod is there; the engine's record of it is not, so it starts the same once more."""
    async with scene(tmp_path) as here:
        one = attempt()
        await here.stop()
        pod = manifest(one, await here.order_of(one), here.settings)
        await here.cluster.create(pod)
        name = pod["metadata"]["name"]
        here.cluster.runs(name)
        here.launcher, here.orders = here._launcher()
        here.found = None
        await here.open()
        assert here.found == {one.key: one.input_digest}
        await here.launcher.start([one])
        await asyncio.sleep(30)
        here.cluster.ends(name, done(one))
        await here.told_of(Finished)
        assert here.cluster.called("create") == 1
        assert len(here.ends) == 1


@virtual
async def test_another_cluster_s_pods_are_not_ours(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        name = await here.runs(attempt())
        here.cluster.pods[name]["metadata"]["labels"]["whimbrel.dev/cluster"] = "beta"
        await here.restart()
        await asyncio.sleep(300)
        assert here.found == {}
        assert name in here.cluster.pods
