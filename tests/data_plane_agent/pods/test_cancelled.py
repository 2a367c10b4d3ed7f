"""Cancelled attempts, at any moment: nothing more is told of them, and no pod of them stays."""

import asyncio
from pathlib import Path

import pytest

from data_plane_agent.launcher import Attempt, Finished, Started
from data_plane_agent.pods.api import ApiDown
from tests.data_plane_agent.pods.cluster_fake import Lost
from tests.data_plane_agent.pods.scene import Scene, attempt, done, scene
from tests.data_plane_agent.virtual_time import until, virtual


async def cancelled(here: Scene, *attempts: Attempt) -> None:
    """Nothing is told of them any more, and no pod stays."""
    before = list(here.told)
    await here.launcher.cancel([one.key for one in attempts])
    await asyncio.sleep(60)
    assert here.told == before
    assert not here.cluster.pods
    assert (here.launcher.capacity().running, here.launcher.capacity().queued) == (0, 0)


@virtual
async def test_cancelled_before_there_is_room(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        here.cluster.room = 0
        await here.launcher.start([attempt()])
        await asyncio.sleep(10)
        here.cluster.room = None
        await cancelled(here, attempt())


@virtual
async def test_cancelled_at_once(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        await here.launcher.start([attempt()])
        await cancelled(here, attempt())
        assert not here.cluster.called("create")


@pytest.mark.parametrize("lost", [False, True])
def test_cancelled_in_the_middle_of_a_create(tmp_path: Path, lost: bool) -> None:
    @virtual
    async def run() -> None:
        async with scene(tmp_path) as here:
            here.cluster.faults = [Lost()] if lost else []
            await here.launcher.start([attempt()])
            await until_called(here)
            await cancelled(here, attempt())
            assert here.cluster.called("create") == 1

    async def until_called(here: Scene) -> None:
        while not here.cluster.called("create"):
            await asyncio.sleep(0.0001)
        assert not here.cluster.pods

    run()


@virtual
async def test_cancelled_while_pending(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        await here.start(attempt())
        await cancelled(here, attempt())


@virtual
async def test_cancelled_while_it_runs(tmp_path: Path) -> None:
    """What it says on its way out is not told."""
    async with scene(tmp_path) as here:
        await here.runs(attempt())
        await here.told_of(Started)
        await cancelled(here, attempt())


@virtual
async def test_cancelled_while_its_end_is_on_its_way(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        one = attempt()
        name = await here.runs(one)
        await here.told_of(Started)
        here.cluster.ends(name, done(one))
        for _ in range(5):
            await asyncio.sleep(0)
        await cancelled(here, one)


@virtual
async def test_cancelled_after_the_end(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        one = attempt()
        here.cluster.ends(await here.runs(one), done(one))
        await here.told_of(Finished)
        await cancelled(here, one)


@virtual
async def test_cancelled_while_the_api_server_is_away(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        await here.runs(attempt())
        here.cluster.fail(ApiDown("no answer"))
        await here.launcher.cancel([attempt().key])
        await asyncio.sleep(60)
        here.cluster.fail(None)
        await until(lambda: not here.cluster.pods)
        assert not here.ends


@virtual
async def test_started_again_after_it_was_cancelled(tmp_path: Path) -> None:
    """The old pod's last state is not that of the new one."""
    async with scene(tmp_path) as here:
        one = attempt()
        name = await here.runs(one)
        old = here.cluster.pods[name]["metadata"]["uid"]
        await here.launcher.cancel([one.key])
        here.told.clear()
        await here.launcher.start([one])

        def anew() -> bool:
            pod = here.cluster.pods.get(name)
            return pod is not None and pod["metadata"]["uid"] != old

        await until(anew)
        assert here.told == []
        here.cluster.ends(name, done(one))
        await here.told_of(Finished)
        assert len(here.ends) == 1
