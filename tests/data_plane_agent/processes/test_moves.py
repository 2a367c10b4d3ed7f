"""What is asked of running attempts from outside: quiesce, kill, and ends that wait to be taken."""

import os
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest

from data_plane_agent.launcher import AttemptEvent, Broke, Found, Saved
from data_plane_agent.processes.launcher import ProcessLauncher
from tests.data_plane_agent.processes.exclusive_under_test import (
    FLOW,
    agent_killed,
    appears_line,
    close_all,
    running,
)
from tests.data_plane_agent.processes.under_test import (
    Events,
    Region,
    appears,
    attempt,
    content,
    ends,
    eventually,
    one_end,
    until_ended,
)

pytestmark = pytest.mark.anyio


@pytest.fixture
def region(tmp_path: Path) -> Region:
    region = Region(tmp_path)
    region.write(FLOW)
    return region


def saved_and_interrupted(seen: Sequence[AttemptEvent]) -> bool:
    kinds = [event.failure.kind for event in seen if isinstance(event, Broke)]
    texts = [content(event.artifact) for event in seen if isinstance(event, Saved)]
    return kinds == ["interrupted"] and texts == ["so far"]


async def test_quiesced_it_saves_and_ends(
    region: Region, launcher: ProcessLauncher, events: Events
) -> None:
    asked, other = (
        attempt("flow:saves", node=f"n{i}", inputs={"mark": str(region.marks / f"m{i}")})
        for i in range(2)
    )
    await launcher.start([asked, other])
    for number in range(2):
        await appears_line(region.marks / f"m{number}")
    await launcher.quiesce([asked.key])
    seen = await until_ended(events, 1)
    assert set(ends(seen)) == {"n0"}
    assert saved_and_interrupted(seen)
    assert running(int(await appears_line(region.marks / "m1")))


async def test_a_worker_forgets_whom_it_was_asked_to_quiesce(
    region: Region, events: Events, launcher: ProcessLauncher
) -> None:
    """The next task of the same worker is not asked."""
    marks = [region.marks / f"m{i}" for i in range(2)]
    first, then = (
        attempt("flow:saves", node=f"n{i}", inputs={"mark": str(mark)})
        for i, mark in enumerate(marks)
    )
    await launcher.start([first])
    pid = await appears_line(marks[0])
    await launcher.quiesce([first.key])
    await until_ended(events, 1)
    await launcher.start([then])
    assert await appears_line(marks[1]) == pid
    assert marks[1].read_text() == f"{pid}\n0\n"  # not asked when it began
    await launcher.quiesce([then.key])
    assert saved_and_interrupted(await until_ended(events, 1))


async def test_one_from_before_is_quiesced_too(region: Region) -> None:
    await agent_killed(region, "saves", seconds=0)
    launcher = region.launcher()
    await launcher.open()
    events = launcher.watch()
    (found,) = await anext(events)
    assert isinstance(found, Found)
    await launcher.quiesce(list(found.running))
    assert saved_and_interrupted(await until_ended(events, 1))
    await launcher.close(kill=True)


async def test_a_connection_lost_in_a_task_runs_nothing_twice(region: Region) -> None:
    mark, then = region.marks / "m", region.marks / "then"
    Path(f"{then}.go").touch()
    launcher = region.launcher(slots=1)
    await launcher.open()
    events = launcher.watch()
    await anext(events)
    one = attempt("flow:saves", inputs={"mark": str(mark)})
    await launcher.start([one])
    pid = await appears_line(mark)
    (worker,) = launcher.pool.workers.values()
    assert worker.transport is not None
    worker.transport.close()
    await launcher.quiesce([one.key])
    assert saved_and_interrupted(await until_ended(events, 1))
    await launcher.start([attempt("flow:stamps", node="then", inputs={"mark": str(then)})])
    assert set(ends(await until_ended(events, 1))) == {"then"}
    assert await appears_line(then) == pid
    assert mark.read_text() == f"{pid}\n0\n"
    assert not worker.lost_at  # it is back: not to be buried
    await launcher.close(kill=True)


async def test_killed_means_gone(region: Region, launcher: ProcessLauncher, events: Events) -> None:
    """Also what left its process group."""
    mark = region.marks / "m"
    one = attempt("flow:forks", inputs={"mark": str(mark), "leaves": True})
    queued = attempt("flow:stamps", node="q", inputs={"mark": str(region.marks / "q")})
    await launcher.start([one])
    pid, child = int(await appears_line(mark)), int(await appears(Path(f"{mark}.child")))
    await launcher.start([queued])
    await launcher.kill([one.key, queued.key])
    assert not running(pid)
    assert not running(child)
    assert launcher.capacity().queued == 0


async def test_what_a_worker_started_goes_with_it_without_an_agent(region: Region) -> None:
    pid, _ = await agent_killed(region, "forks", seconds=0)
    child = int(await appears(region.marks / "m.child"))
    assert running(child)
    os.kill(pid, signal.SIGKILL)
    await eventually(lambda: not running(child))
    await close_all(region)


async def test_one_from_before_is_killed(region: Region) -> None:
    pid, _ = await agent_killed(region, "stamps", seconds=0)
    launcher = region.launcher()
    await launcher.open()
    events = launcher.watch()
    (found,) = await anext(events)
    assert isinstance(found, Found)
    await launcher.cancel(list(found.running))
    await launcher.kill(list(found.running))  # what is being stopped is waited for, too
    assert not running(pid)
    await launcher.close(kill=True)


async def test_an_end_that_nobody_took_is_told_again(region: Region) -> None:
    """A later one that was taken does not make its worker forget it."""
    mark = region.marks / "m"
    Path(f"{mark}.go").touch()
    first = region.launcher(slots=1)
    await first.open()
    events = first.watch()
    await anext(events)
    for node in ("untaken", "taken"):
        await first.start([attempt("flow:stamps", node=node, inputs={"mark": str(mark)})])
        end = await one_end(events)
    first.taken([end.key])
    await eventually(lambda: not first.capacity().running)
    await first.close(kill=False)
    spool = region.root / "agent" / "spool"
    await eventually(lambda: bool(list(spool.glob("*.json"))))
    second = region.launcher()
    await second.open()
    again = second.watch()
    (found,) = await anext(again)
    assert isinstance(found, Found)
    assert "untaken" in {key.node for key in found.running}
    assert "untaken" in ends(await until_ended(again, len(found.running)))
    await second.close(kill=True)


async def test_what_was_taken_is_not_told_again(region: Region) -> None:
    mark = region.marks / "m"
    Path(f"{mark}.go").touch()
    first = region.launcher(slots=1)
    await first.open()
    events = first.watch()
    await anext(events)
    await first.start([attempt("flow:stamps", inputs={"mark": str(mark)})])
    first.taken([(await one_end(events)).key])
    (worker,) = first.pool.workers.values()
    await eventually(lambda: worker.acked == 1)
    await first.close(kill=False)
    second = region.launcher()
    await second.open()
    assert await anext(second.watch()) == [Found({})]
    await second.close(kill=True)
