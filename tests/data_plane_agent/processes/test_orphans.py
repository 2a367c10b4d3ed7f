"""Exclusive families that are killed, or busy with another module, and what their tasks left
behind."""

import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from whimbrel.runtime_timer import boottime_ns
from whimbrel.spec import Owner

from data_plane_agent.processes.launcher import ProcessLauncher
from tests.data_plane_agent.processes.exclusive_under_test import (
    FLOW,
    SECOND,
    Session,
    agent_killed,
    appears_line,
    exclusive,
    ran_until,
    running,
)
from tests.data_plane_agent.processes.under_test import (
    Events,
    Region,
    appears,
    attempt,
    broken,
    eventually,
)

pytestmark = pytest.mark.anyio


@pytest.fixture
def region(tmp_path: Path) -> Region:
    region = Region(tmp_path)
    region.write(FLOW)
    return region


@pytest.fixture
async def launcher(region: Region) -> AsyncIterator[ProcessLauncher]:
    session = Session()
    session.renew(for_seconds=600)
    launcher = region.launcher(renewal=session, import_seconds=1.0)
    await launcher.open()
    yield launcher
    await launcher.close(kill=True)


async def left_running(launcher: ProcessLauncher, mark: Path) -> tuple[int, int]:
    """The process of a task, and one that it left in a session of its own."""
    await launcher.start([exclusive("with_child", mark)])
    return int(await appears_line(mark)), int(await appears(Path(f"{mark}.child")))


def family(launcher: ProcessLauncher) -> int:
    (family,) = launcher.pool.families.values()
    return family.pid


async def test_with_its_family_all_of_a_task_ends_before_that_is_told(
    region: Region, launcher: ProcessLauncher, events: Events
) -> None:
    pid, child = await left_running(launcher, region.marks / "m")
    os.kill(family(launcher), signal.SIGKILL)
    assert (await broken(events)).failure.owner is Owner.SYSTEM
    assert not running(pid)
    assert not running(child)


async def test_killed_after_its_family_it_is_dead_with_all_that_it_left(
    region: Region, launcher: ProcessLauncher
) -> None:
    pid, child = await left_running(launcher, region.marks / "m")
    os.kill(family(launcher), signal.SIGKILL)
    await launcher.kill([exclusive("with_child", region.marks / "m").key])
    assert not running(pid)
    assert not running(child)


async def test_another_modules_slow_import_costs_it_nothing(
    region: Region, launcher: ProcessLauncher, events: Events
) -> None:
    mark = region.marks / "m"
    pid, child = await left_running(launcher, mark)
    (region.code / "slow.py").write_text("import time\ntime.sleep(600)\n")
    await launcher.start([attempt("slow:f", node="slow", exclusive=True)])
    end = await broken(events)
    assert (end.key.node, end.failure.kind) == ("slow", "import")
    await ran_until(mark, boottime_ns() + SECOND // 2)
    assert running(pid)
    assert running(child)


async def test_the_next_agent_ends_what_is_left_of_a_dead_family(region: Region) -> None:
    pid, _ = await agent_killed(region, "with_child", seconds=600)
    child = int(await appears(region.marks / "m.child"))
    (file,) = (region.root / "agent" / "workers").glob("family-*.pid")
    os.kill(json.loads(file.read_text())["pid"], signal.SIGKILL)
    await eventually(lambda: not running(pid))
    after = region.launcher()
    await after.open()
    try:
        await eventually(lambda: not running(child))
    finally:
        await after.close(kill=True)
