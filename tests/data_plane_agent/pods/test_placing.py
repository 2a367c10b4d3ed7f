"""Attempts that find no place in the cluster, or one where they never start; what is told."""

import asyncio
from pathlib import Path

import pytest
from whimbrel.spec import Owner

from data_plane_agent.launcher import Broke, Started, Unplaceable
from data_plane_agent.pods.api import ApiDown, Denied
from data_plane_agent.pods.codec import pod_name
from tests.data_plane_agent.pods.scene import attempt, scene
from tests.data_plane_agent.virtual_time import until, virtual


@virtual
async def test_no_room_for_too_long_is_told_once(tmp_path: Path) -> None:
    """And the attempt still waits: that is for who placed it to end."""
    async with scene(tmp_path, unschedulable_seconds=30) as here:
        one = attempt()
        here.cluster.room = 0
        await here.launcher.start([one])
        told = await here.told_of(Unplaceable)
        assert told.key == one.key
        assert "exceeded quota" in told.message
        await asyncio.sleep(600)
        assert here.told == [told]
        here.cluster.room = 1
        await until(lambda: here.cluster.pods)


@virtual
async def test_a_pod_that_no_node_takes_is_told_once(tmp_path: Path) -> None:
    async with scene(tmp_path, unschedulable_seconds=30) as here:
        name = await here.start(attempt())
        await asyncio.sleep(25)
        assert here.told == []
        here.cluster.unplaced(name, "0/3 nodes are available: 3 Insufficient cpu.")
        told = await here.told_of(Unplaceable)
        assert "Insufficient cpu" in told.message
        await asyncio.sleep(600)
        assert here.told == [told]
        here.cluster.set(name, host="a", conditions=[{"type": "PodScheduled", "status": "True"}])
        await until(lambda: here.told == [told, Unplaceable(told.key, "")])
        here.cluster.runs(name)
        await here.told_of(Started)
        await asyncio.sleep(600)
        assert len(here.told) == 3


@virtual
@pytest.mark.parametrize(
    ("condition", "text"),
    [
        ({}, "no scheduler took it"),
        (
            {"status": "False", "reason": "SchedulingGated", "message": "non-empty gates"},
            "SchedulingGated: non-empty gates",
        ),
    ],
)
async def test_a_pod_that_no_scheduler_takes_is_told(
    tmp_path: Path, condition: dict[str, str], text: str
) -> None:
    async with scene(tmp_path, unschedulable_seconds=30) as here:
        here.cluster.room = 0
        await here.launcher.start([attempt()])
        await asyncio.sleep(25)
        here.cluster.room = 1
        await until(lambda: here.cluster.pods)
        name = pod_name(attempt().key)
        here.cluster.set(name, conditions=[{"type": "PodScheduled", **condition}])
        await asyncio.sleep(29)
        assert here.told == []  # it waits for a node only since it is there
        assert (await here.told_of(Unplaceable, seconds=5)).message == text


@virtual
async def test_a_pod_that_is_placed_and_never_starts(tmp_path: Path) -> None:
    """No time counts while nobody could tell that it has started."""
    async with scene(tmp_path, start_seconds=100) as here:
        name = await here.start(attempt())
        await asyncio.sleep(90)
        here.cluster.waits(name, "ContainerCreating")
        await asyncio.sleep(90)
        here.cluster.fail(ApiDown("connection refused"))
        await asyncio.sleep(60)
        here.cluster.fail(None)
        await asyncio.sleep(95)
        assert here.told == []
        end = await here.told_of(Broke)
        assert (end.failure.owner, end.failure.kind) == (Owner.SYSTEM, "not_started")
        assert (end.host, end.failure.message[-17:]) == ("a", "ContainerCreating")
        await until(lambda: not here.cluster.pods)


@virtual
async def test_what_an_old_picture_shows_is_not_told(tmp_path: Path) -> None:
    """The API server goes away while the pod has no node; meanwhile it gets one."""
    async with scene(tmp_path, unschedulable_seconds=30) as here:
        name = await here.start(attempt())
        here.cluster.unplaced(name, "0/3 nodes are available: 3 Insufficient cpu.")
        await asyncio.sleep(10)
        here.cluster.fail(ApiDown("connection refused"))
        await asyncio.sleep(120)
        here.cluster.runs(name)
        await asyncio.sleep(120)
        here.cluster.fail(None)
        await here.told_of(Started)
        await asyncio.sleep(60)
        assert here.all(Unplaceable) == []


NO_ROLE = (
    'pods is forbidden: User "system:serviceaccount:w:agent" cannot create resource "pods" in API '
    'group "" in the namespace "w"'
)
TERMINATING = (
    'pods "w-1" is forbidden: unable to create new content in namespace w because it is being '
    "terminated"
)


@virtual
@pytest.mark.parametrize("message", [NO_ROLE, TERMINATING])
async def test_a_refusal_that_is_not_of_the_pod_is_no_room(tmp_path: Path, message: str) -> None:
    async with scene(tmp_path, unschedulable_seconds=30) as here:
        here.cluster.breaks("create", Denied(message, status=403))
        await here.launcher.start([attempt()])
        assert (await here.told_of(Unplaceable)).message == message
        await asyncio.sleep(60)
        assert len(here.told) == 1
        here.cluster.broken.clear()
        await until(lambda: here.cluster.pods)
