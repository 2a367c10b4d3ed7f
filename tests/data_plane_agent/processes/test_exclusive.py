"""Exclusive tasks in real workers: nothing of them runs beyond the last renewal, by their own
stamps.
"""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from whimbrel.runtime_frames import Message
from whimbrel.runtime_timer import boottime_ns
from whimbrel.runtime_worker import spool_file
from whimbrel.spec import Owner

from data_plane_agent.attempt_answers import parts_of
from data_plane_agent.launcher import Finished, Found
from data_plane_agent.processes.launcher import ProcessLauncher
from data_plane_agent.processes.workers import EXIT_SECONDS
from tests.data_plane_agent.processes.exclusive_under_test import (
    FLOW,
    Session,
    agent_killed,
    appears_line,
    close_all,
    exclusive,
    ran_until,
    running,
    stamps,
)
from tests.data_plane_agent.processes.under_test import (
    Events,
    Region,
    appears,
    broken,
    eventually,
    one_end,
)

pytestmark = pytest.mark.anyio
HALF = 500_000_000


@pytest.fixture
def region(tmp_path: Path) -> Region:
    region = Region(tmp_path)
    region.write(FLOW)
    return region


@pytest.fixture
def session() -> Session:
    return Session()


@pytest.fixture
async def launcher(region: Region, session: Session) -> AsyncIterator[ProcessLauncher]:
    launcher = region.launcher(renewal=session)
    await launcher.open()
    yield launcher
    await launcher.close(kill=True)


@pytest.fixture
def mark(region: Region) -> Path:
    return region.marks / "m"


async def test_without_a_live_renewal_nothing_starts(
    launcher: ProcessLauncher, session: Session, events: Events, mark: Path
) -> None:
    session.until = boottime_ns()  # one that has passed
    await launcher.start([exclusive("stamps", mark)])
    end = await broken(events)
    assert (end.failure.owner, end.failure.kind) == (Owner.SYSTEM, "no_renewal")
    assert "not started" in end.failure.message
    assert not mark.exists()


async def test_a_renewal_that_comes_late_starts_it(
    launcher: ProcessLauncher, session: Session, events: Events, mark: Path
) -> None:
    await launcher.start([exclusive("stamps", mark)])
    await eventually(lambda: launcher.capacity().running == 1)
    session.renew(for_seconds=60)
    await appears_line(mark)
    Path(f"{mark}.go").touch()
    assert isinstance(await one_end(events), Finished)


async def test_renewals_push_it_out(
    launcher: ProcessLauncher, session: Session, events: Events, mark: Path
) -> None:
    await launcher.start([exclusive("stamps", mark)])
    pid = await session.begun(mark)
    first = session.until
    await session.renewed_while(lambda: running(pid) and max(stamps(mark), default=0) <= first)
    assert max(stamps(mark)) > first
    end = await broken(events)  # nobody renews it any more
    assert (end.failure.owner, end.failure.kind) == (Owner.SYSTEM, "no_renewal")
    assert "own timer" in end.failure.message
    assert max(stamps(mark)) <= session.until


async def test_one_that_was_stopped_beyond_its_deadline_does_nothing_more(
    launcher: ProcessLauncher, session: Session, events: Events, mark: Path
) -> None:
    await launcher.start([exclusive("stamps", mark)])
    pid = await session.begun(mark)
    os.kill(pid, signal.SIGSTOP)
    await eventually(lambda: boottime_ns() > session.until + HALF // 10)
    if running(pid):
        os.kill(pid, signal.SIGCONT)
    await ran_until(mark, session.until)
    assert not running(pid)
    assert max(stamps(mark)) <= session.until
    # The last renewal may be one that it was too late to hear of: then it is just lost.
    assert (await broken(events)).failure.kind in ("no_renewal", "worker_lost")


async def test_its_end_is_told_when_nothing_of_it_is_left(
    launcher: ProcessLauncher, session: Session, events: Events, mark: Path
) -> None:
    session.renew(for_seconds=60)
    await launcher.start([exclusive("with_child", mark)])
    child = int(await appears(Path(f"{mark}.child")))
    assert running(child)
    Path(f"{mark}.go").touch()
    end = await one_end(events)
    assert isinstance(end, Finished)
    assert not running(child)
    assert not running(json.loads(end.outputs.value)["o0"])


async def test_an_end_beside_it_costs_it_nothing(
    region: Region, launcher: ProcessLauncher, session: Session, events: Events, mark: Path
) -> None:
    """Neither its worker nor what that left running, nor what the module started at its import."""
    region.write(
        FLOW
        + """
    helper = subprocess.Popen(["sleep", "600"])

    @task
    def helped(mark: str) -> int:
        return helper.pid
    """
    )
    session.renew(for_seconds=60)
    await launcher.start([exclusive("with_child", mark)])
    pid, child = int(await appears_line(mark)), int(await appears(Path(f"{mark}.child")))
    await launcher.start([exclusive("helped", mark, node="other")])
    end = await one_end(events)
    assert isinstance(end, Finished)
    assert end.key.node == "other"
    for process in (pid, child, json.loads(end.outputs.value)["o0"]):
        assert running(process)
    os.kill(json.loads(end.outputs.value)["o0"], signal.SIGKILL)


async def test_a_worker_runs_one_only(
    launcher: ProcessLauncher, session: Session, events: Events, mark: Path
) -> None:
    session.renew(for_seconds=60)
    Path(f"{mark}.go").touch()
    pids: set[int] = set()
    for number in range(1, 4):
        await launcher.start([exclusive("stamps", mark, number=number)])
        end = await one_end(events)
        assert isinstance(end, Finished)
        pids.add(json.loads(end.outputs.value)["o0"])
    assert len(pids) == 3


async def test_killed_with_all_it_started(
    launcher: ProcessLauncher, session: Session, events: Events, mark: Path
) -> None:
    session.renew(for_seconds=60)
    one = exclusive("with_child", mark)
    await launcher.start([one])
    pid, child = int(await appears_line(mark)), int(await appears(Path(f"{mark}.child")))
    await launcher.kill([one.key])
    assert not running(pid)
    assert not running(child)
    await launcher.kill([one.key])


async def test_killed_only_when_its_family_says_so(
    launcher: ProcessLauncher, session: Session, events: Events, mark: Path
) -> None:
    """What it left behind may be where only its family finds it."""
    session.renew(for_seconds=60)
    one = exclusive("with_child", mark)
    await launcher.start([one])
    pid, child = int(await appears_line(mark)), int(await appears(Path(f"{mark}.child")))
    (family,) = launcher.pool.families.values()
    os.kill(family.pid, signal.SIGSTOP)
    kill = asyncio.create_task(launcher.kill([one.key]))
    await eventually(lambda: not running(pid))
    _, still = await asyncio.wait([kill], timeout=EXIT_SECONDS + 0.5)
    os.kill(family.pid, signal.SIGCONT)
    assert still
    await kill
    assert not running(child)


async def test_without_an_agent_it_ends_at_its_deadline(region: Region, mark: Path) -> None:
    pid, until = await agent_killed(region, "with_child", seconds=1.5)
    child = int(await appears(Path(f"{mark}.child")))
    await ran_until(mark, until)
    assert not running(pid)
    assert until - 2 * HALF < max(stamps(mark)) <= until
    await eventually(lambda: not running(child))
    await close_all(region)


async def test_one_from_before_is_not_renewed_before_it_is_claimed(
    region: Region, mark: Path, session: Session
) -> None:
    pid, until = await agent_killed(region, "stamps", seconds=3)
    session.renew(for_seconds=60)
    launcher = region.launcher(renewal=session)
    await launcher.open()
    events = launcher.watch()
    (found,) = await anext(events)
    assert isinstance(found, Found)
    assert found.running
    await ran_until(mark, until)
    assert not running(pid)
    assert max(stamps(mark)) <= until
    assert (await broken(events)).failure.kind == "no_renewal"
    await launcher.close(kill=True)


async def test_one_from_before_goes_on_once_it_is_claimed(
    region: Region, mark: Path, session: Session
) -> None:
    pid, until = await agent_killed(region, "stamps", seconds=3)
    session.renew(for_seconds=60)
    launcher = region.launcher(renewal=session)
    await launcher.open()
    events = launcher.watch()
    (found,) = await anext(events)
    assert isinstance(found, Found)
    await launcher.adopt(list(found.running))
    await ran_until(mark, until + HALF)
    assert running(pid)
    assert max(stamps(mark)) > until
    Path(f"{mark}.go").touch()
    end = await one_end(events)
    assert isinstance(end, Finished)
    assert not running(pid)
    assert list((region.root / "agent" / "spool").iterdir())
    launcher.taken([end.key])
    assert not list((region.root / "agent" / "spool").iterdir())
    await launcher.close(kill=True)


async def test_an_answer_on_disk_waits_for_its_worker_to_go(region: Region, mark: Path) -> None:
    pid, _ = await agent_killed(region, "stamps", seconds=60)
    key = parts_of(exclusive("stamps", mark).key)
    answer: Message = {
        "t": "done",
        "value": '{"o0":1}',
        "digest": "v",
        "artifacts": [],
        "offloaded": None,
    }
    about = {"k": key, "d": "digest of n", "s": 1, "e": 2, "stdout": None, "stderr": None}
    spool_file(region.root / "agent", key).write_text(json.dumps(answer | about))
    launcher = region.launcher()
    await launcher.open()
    events = launcher.watch()
    await anext(events)
    end = asyncio.create_task(one_end(events))
    _, still = await asyncio.wait([end], timeout=0.3)
    assert still
    os.kill(pid, signal.SIGKILL)
    assert isinstance(await end, Finished)
    await launcher.close(kill=True)


async def test_what_ended_without_an_agent_is_told_by_the_next(region: Region, mark: Path) -> None:
    pid, _ = await agent_killed(region, "stamps", seconds=60)
    Path(f"{mark}.go").touch()
    await eventually(lambda: not running(pid))
    launcher = region.launcher()
    await launcher.open()
    events = launcher.watch()
    await anext(events)
    end = await one_end(events)
    assert isinstance(end, Finished)
    assert json.loads(end.outputs.value)["o0"] == pid
    await launcher.close(kill=True)
