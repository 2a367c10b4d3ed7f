"""Pods that are to be gone for sure, and work that pods do not take."""

from dataclasses import replace
from pathlib import Path

import pytest
from whimbrel.errors import Unreachable
from whimbrel.spec import Owner

from data_plane_agent.launcher import Broke
from tests.data_plane_agent.pod_scene import attempt, scene
from tests.data_plane_agent.virtual_time import until, virtual


@virtual
async def test_dead_is_what_the_cluster_says_is_gone(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        one = attempt()
        name = await here.runs(one)
        with pytest.raises(Unreachable, match="not gone yet"):
            await here.launcher.kill([one.key])
        await until(lambda: here.cluster.pods[name]["metadata"].get("deletionTimestamp"))
        here.cluster.remove(name)
        await here.launcher.kill([one.key])
        assert here.ends == []


@virtual
async def test_a_pod_on_its_way_is_waited_for(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        one = attempt()
        await here.launcher.start([one])
        await until(lambda: here.cluster.called("create"))
        with pytest.raises(Unreachable, match="not gone yet"):
            await here.launcher.kill([one.key])


@virtual
async def test_exclusive_work_is_refused(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        await here.launcher.start([replace(attempt(), exclusive=True)])
        end = await here.told_of(Broke)
        assert (end.failure.owner, end.failure.kind) == (Owner.CONFIG, "mode")
        assert here.cluster.pods == {}


@virtual
async def test_who_is_asked_to_save_is_deleted_with_its_grace_and_still_heard(
    tmp_path: Path,
) -> None:
    async with scene(tmp_path) as here:
        one = attempt()
        name = await here.runs(one)
        await here.launcher.quiesce([one.key])
        await until(lambda: here.cluster.pods[name]["metadata"].get("deletionTimestamp"))
        assert here.ends == []
        here.cluster.remove(name)
        end = await here.told_of(Broke)
        assert end.failure.owner is Owner.SYSTEM


@virtual
async def test_who_is_not_there_can_not_be_asked(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        await here.launcher.quiesce([attempt().key])
        assert here.cluster.pods == {}
