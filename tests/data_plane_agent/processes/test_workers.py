"""Work that outlives its agent: a launcher killed in mid-task, and the next on the same folder."""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import pytest
from whimbrel.runtime_frames import Now, StatePage

from data_plane_agent.launcher import Broke, Finished, Found
from tests.data_plane_agent.processes.under_test import (
    Region,
    alive,
    appears,
    attempt,
    ends,
    eventually,
    until_ended,
)

pytestmark = pytest.mark.anyio

FLOW = """
    import os, time
    from whimbrel import task

    @task
    def wait_for(mark: str, go: str) -> int:
        print("waiting")
        with open(mark, "a") as file:
            file.write(f"{os.getpid()}\\n")
        while not os.path.exists(go):
            time.sleep(0.01)
        return os.getpid()
"""

AGENT = """
import asyncio, sys
from pathlib import Path
from tests.data_plane_agent.processes.under_test import Region, attempt

async def main() -> None:
    region = Region(Path(sys.argv[1]))
    launcher = region.launcher()
    await launcher.open()
    events = launcher.watch()
    await anext(events)
    marks = region.marks
    await launcher.start(
        [
            attempt(
                "flow:wait_for",
                node=f"n{i}",
                inputs={"mark": str(marks / f"m{i}"), "go": str(marks / f"go{i}")},
            )
            for i in range(4)
        ]
    )
    while True:
        await anext(events)

asyncio.run(main())
"""


@pytest.fixture
def region(tmp_path: Path) -> Region:
    region = Region(tmp_path)
    region.write(FLOW)
    return region


async def agent_killed_in_mid_task(region: Region) -> list[int]:
    """Two of four tasks run in an agent that is then killed; returns the workers' process ids."""
    command = [sys.executable, "-c", AGENT, str(region.root)]
    agent = await asyncio.create_subprocess_exec(*command)
    try:
        pids = [int(await appears(region.marks / f"m{i}")) for i in range(2)]
    finally:
        agent.send_signal(signal.SIGKILL)
        await agent.wait()
    return pids


async def test_running_work_is_adopted(region: Region) -> None:
    pids = await agent_killed_in_mid_task(region)
    launcher = region.launcher()
    await launcher.open()
    events = launcher.watch()
    (found,) = await anext(events)
    assert isinstance(found, Found)
    assert {key.node: digest for key, digest in found.running.items()} == {
        "n0": "digest of n0",
        "n1": "digest of n1",
    }
    assert launcher.capacity().running == 2
    key = next(key for key in found.running if key.node == "n0")
    assert await launcher.read_log(key, "stdout", offset=0, limit=99) == (b"waiting\n", False)
    (region.marks / "go0").touch()
    (region.marks / "go1").touch()
    results = ends(await until_ended(events, 2))
    for node, pid in zip(("n0", "n1"), pids, strict=True):
        end = results[node]
        assert isinstance(end, Finished)
        assert json.loads(end.outputs.value)["o0"] == pid
        assert end.input_digest == f"digest of {node}"
    assert not (
        region.marks / "m2"
    ).exists()  # handed out by nobody: the first agent's row died with it
    again = attempt(
        "flow:wait_for", node="n9", inputs={"mark": str(region.marks / "m9"), "go": "/"}
    )
    await launcher.start([again])
    end = ends(await until_ended(events, 1))["n9"]
    assert isinstance(end, Finished)
    assert json.loads(end.outputs.value)["o0"] in pids  # a worker of before, still warm
    launcher.taken(list(found.running))
    await launcher.close(kill=True)
    assert not list((region.root / "agent" / "spool").iterdir())


async def test_what_ended_without_an_agent_is_told(region: Region) -> None:
    await agent_killed_in_mid_task(region)
    (region.marks / "go0").touch()
    spool = region.root / "agent" / "spool"
    await eventually(lambda: bool(list(spool.glob("*.json"))))
    launcher = region.launcher()
    await launcher.open()
    events = launcher.watch()
    (found,) = await anext(events)
    assert isinstance(found, Found)
    assert {key.node for key in found.running} == {"n0", "n1"}
    assert set(ends(await until_ended(events, 1))) == {"n0"}
    assert list(spool.iterdir())  # kept until whoever was told has it on disk
    launcher.taken(list(found.running))
    assert not list(spool.iterdir())
    await launcher.close(kill=True)


async def test_a_worker_that_dies_after_adoption_is_lost(region: Region) -> None:
    pids = await agent_killed_in_mid_task(region)
    launcher = region.launcher()
    await launcher.open()
    events = launcher.watch()
    await anext(events)
    os.kill(pids[0], signal.SIGKILL)
    end = ends(await until_ended(events, 1))["n0"]
    assert isinstance(end, Broke)
    assert end.failure.kind == "worker_lost"
    assert end.logs.stdout is not None
    await launcher.close(kill=True)
    assert not alive(pids[1])


async def test_adopted_work_can_be_cancelled(region: Region) -> None:
    pids = await agent_killed_in_mid_task(region)
    launcher = region.launcher()
    await launcher.open()
    events = launcher.watch()
    (found,) = await anext(events)
    assert isinstance(found, Found)
    await launcher.cancel(list(found.running))
    await eventually(lambda: launcher.capacity().running == 0)
    assert not any(map(alive, pids))
    await launcher.close(kill=True)


async def test_closing_without_a_kill_leaves_the_work(region: Region) -> None:
    first = region.launcher()
    await first.open()
    events = first.watch()
    await anext(events)
    mark, go = region.marks / "m", region.marks / "go"
    await first.start([attempt("flow:wait_for", inputs={"mark": str(mark), "go": str(go)})])
    pid = int(await appears(mark))
    await first.close(kill=False)
    second = region.launcher()
    await second.open()
    events = second.watch()
    (found,) = await anext(events)
    assert isinstance(found, Found)
    assert len(found.running) == 1
    go.touch()
    end = ends(await until_ended(events, 1))["n"]
    assert isinstance(end, Finished)
    assert json.loads(end.outputs.value)["o0"] == pid
    await second.close(kill=True)


def test_a_task_taken_back_never_begins(tmp_path: Path) -> None:
    worker = StatePage(tmp_path / "page", create=True)
    agent = StatePage(tmp_path / "page")
    assert worker.begin(Now(1, True, 10, 0, 0), b'{"k":"v"}')
    assert agent.now == Now(1, True, 10, 0, 0)
    assert agent.meta == {"k": "v"}
    agent.revoked_from = 2
    assert not worker.begin(Now(2, True, 20, 0, 0), b"{}")
    assert not agent.now.running
    worker.close()
    agent.close()
