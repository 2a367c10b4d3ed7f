"""Pods that are asked to leave, and pods that are to be dead for sure."""

import asyncio
from pathlib import Path

import pytest
from whimbrel.errors import Unreachable
from whimbrel.spec import Owner

from data_plane_agent.launcher import Broke, Finished, Started
from data_plane_agent.pods.api import ApiDown
from tests.data_plane_agent.pods.scene import attempt, done, scene
from tests.data_plane_agent.virtual_time import until, virtual

INTERRUPTED = (
    '{"t":"broke","d":"x","s":1,"e":2,"owner":"system","kind":"interrupted","message":"asked to '
    'move; saved a checkpoint","tb":"","unreadable":[],"stdout":null}'
)


@virtual
async def test_asked_to_leave_it_has_the_settings_grace_and_its_answer_is_told(
    tmp_path: Path,
) -> None:
    async with scene(tmp_path, grace_seconds=20.0) as here:
        one = attempt()
        name = await here.runs(one)
        await here.launcher.quiesce([one.key])
        await until(lambda: "deletionTimestamp" in here.cluster.pods[name]["metadata"])
        await asyncio.sleep(19)
        assert here.ends == []
        here.cluster.ends(name, INTERRUPTED, code=1)
        end = await here.told_of(Broke)
        assert (end.failure.owner, end.failure.kind) == (Owner.SYSTEM, "interrupted")


@virtual
async def test_asked_to_leave_it_may_as_well_end_well(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        one = attempt()
        name = await here.runs(one)
        await here.launcher.quiesce([one.key])
        here.cluster.ends(name, done(one))
        assert (await here.told_of(Finished)).key == one.key


@virtual
async def test_what_does_not_leave_in_its_time_is_no_fault_of_the_tasks(tmp_path: Path) -> None:
    async with scene(tmp_path, grace_seconds=5.0) as here:
        one = attempt()
        await here.runs(one)
        await here.launcher.quiesce([one.key])
        end = await here.told_of(Broke)
        assert (end.failure.owner, end.failure.kind) == (Owner.SYSTEM, "interrupted")


@virtual
async def test_somebody_else_deletes_it(tmp_path: Path) -> None:
    async with scene(tmp_path, grace_seconds=5.0) as here:
        one = attempt()
        name = await here.runs(one)
        uid = here.cluster.pods[name]["metadata"]["uid"]
        await here.cluster.delete(name, uid=uid)
        assert (await here.told_of(Broke)).failure.kind == "pod_lost"


@virtual
async def test_asked_to_leave_before_it_began_it_is_deleted(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        one = attempt()
        name = await here.start(one)
        await here.launcher.quiesce([one.key])
        end = await here.told_of(Broke)
        assert end.failure.kind == "interrupted"
        assert name not in here.cluster.pods
        assert not here.all(Started)


@virtual
async def test_asked_to_leave_while_its_pod_is_made(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        one = attempt()
        await here.launcher.start([one])
        await here.launcher.quiesce([one.key])
        assert (await here.told_of(Broke)).failure.kind == "interrupted"


@virtual
async def test_asked_twice_it_is_deleted_once(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        one = attempt()
        await here.runs(one)
        await here.launcher.quiesce([one.key, one.key])
        await here.launcher.quiesce([one.key])
        await asyncio.sleep(1)
        assert here.cluster.called("delete") == 1


@virtual
async def test_an_agent_that_restarts_meanwhile_tells_its_end(tmp_path: Path) -> None:
    """Unlike one that was cancelled."""
    async with scene(tmp_path) as here:
        one = attempt()
        name = await here.runs(one)
        await here.launcher.quiesce([one.key])
        await until(lambda: "deletionTimestamp" in here.cluster.pods[name]["metadata"])
        await here.restart()
        assert here.found == {one.key: one.input_digest}
        here.cluster.ends(name, INTERRUPTED, code=1)
        assert (await here.told_of(Broke)).failure.kind == "interrupted"


# -- kill ------------------------------------------------------------------------------------------


@virtual
async def test_killed_it_is_waited_for_and_not_told(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        one = attempt()
        name = await here.runs(one)
        await here.launcher.kill([one.key])
        assert name not in here.cluster.pods
        assert here.ends == []


@virtual
async def test_a_container_that_has_ended_is_enough(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        one = attempt()
        name = await here.runs(one)
        here.cluster.dead_hosts.add("a")
        killed = asyncio.create_task(here.launcher.kill([one.key]))
        await until(lambda: "deletionTimestamp" in here.cluster.pods[name]["metadata"])
        assert not killed.done()
        here.cluster.ends(name, code=137)
        await killed
        assert name in here.cluster.pods


@virtual
async def test_a_node_that_does_not_answer_leaves_it_unknown(tmp_path: Path) -> None:
    """The API server has it deleted, and says that it is lost."""
    async with scene(tmp_path) as here:
        one = attempt()
        name = await here.runs(one)
        here.cluster.dead_hosts.add("a")
        with pytest.raises(Unreachable, match="node a has not told"):
            await here.launcher.kill([one.key])
        here.cluster.set(name, phase="Failed", reason="NodeLost")
        with pytest.raises(Unreachable, match="node a has not told"):
            await here.launcher.kill([one.key])
        here.cluster.remove(name)
        await here.launcher.kill([one.key])
        assert here.ends == []


@virtual
async def test_an_api_server_that_is_down_leaves_it_unknown(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        one = attempt()
        await here.runs(one)
        here.cluster.fail(ApiDown("refused"))
        with pytest.raises(Unreachable, match="does not tell"):
            await here.launcher.kill([one.key])
        here.cluster.fail(None)
        await here.launcher.kill([one.key])
        assert here.cluster.pods == {}


@virtual
async def test_a_pod_that_is_being_made_is_waited_for(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        one, here.cluster.slow = attempt(), 3.0
        await here.launcher.start([one])
        await until(lambda: here.cluster.called("create"))
        began = asyncio.get_running_loop().time()
        await here.launcher.kill([one.key])
        assert asyncio.get_running_loop().time() - began > 2.5, "its pod came later"
        assert here.cluster.pods == {}
        assert here.ends == []


@virtual
async def test_one_that_was_given_up_may_run_still(tmp_path: Path) -> None:
    """Its end was told and taken long ago; its node comes back."""
    async with scene(tmp_path) as here:
        one = attempt()
        name = await here.runs(one)
        here.cluster.dead_hosts.add("a")
        here.cluster.node("a", ready="Unknown")
        here.cluster.node("b")
        assert (await here.told_of(Broke, seconds=90)).failure.kind == "node_lost"
        await asyncio.sleep(1)
        with pytest.raises(Unreachable, match="node a has not told"):
            await here.launcher.kill([one.key])
        here.cluster.remove(name)
        await here.launcher.kill([one.key])


@virtual
async def test_nobody_it_knows_is_dead(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        await here.launcher.kill([attempt().key])
