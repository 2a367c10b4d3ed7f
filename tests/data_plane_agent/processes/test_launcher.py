"""Real tasks in real worker processes: each way to end."""

import json
import os
import signal

import pytest
from whimbrel.spec import Owner

from data_plane_agent.launcher import Broke, Finished
from data_plane_agent.processes.launcher import ProcessLauncher
from tests.data_plane_agent.processes.under_test import (
    Events,
    Region,
    appears,
    attempt,
    broken,
    content,
    ends,
    one_end,
    until_ended,
)

pytestmark = pytest.mark.anyio


async def test_a_result_comes_back_inline(launcher: ProcessLauncher, events: Events) -> None:
    await launcher.start([attempt("flow:double", inputs={"x": 21})])
    end = await one_end(events)
    assert isinstance(end, Finished)
    assert json.loads(end.outputs.value) == {"o0": 42}
    assert end.input_digest == "digest of n"
    assert 0 < end.started_ns <= end.ended_ns
    assert end.logs.stdout is None
    assert end.logs.stderr is None


async def test_many_tasks_share_warm_workers(launcher: ProcessLauncher, events: Events) -> None:
    await launcher.start([attempt("flow:quiet", node=f"n{i}") for i in range(300)])
    found = ends(await until_ended(events, 300))
    values = [
        json.loads(end.outputs.value)["o0"] for end in found.values() if isinstance(end, Finished)
    ]
    assert len(values) == 300
    assert len(set(values)) <= 2
    assert launcher.capacity().running == 0


async def test_a_known_key_is_ignored(launcher: ProcessLauncher, events: Events) -> None:
    same = attempt("flow:double", inputs={"x": 1})
    await launcher.start([same, same])
    await launcher.start([same])
    await until_ended(events, 1)
    await launcher.start([attempt("flow:double", node="other", inputs={"x": 1})])
    assert set(ends(await until_ended(events, 1))) == {"other"}


async def test_an_exception_is_the_users(launcher: ProcessLauncher, events: Events) -> None:
    await launcher.start([attempt("flow:inner_raise")])
    end = await broken(events)
    assert (end.failure.owner, end.failure.kind) == (Owner.USER, "raised")
    assert end.failure.message.startswith("ValueError: no such luck (flow.py:")
    assert end.failure.node == "n"
    assert "deeper" in end.failure.traceback
    assert "runtime_" not in end.failure.traceback


async def test_leaving_without_a_word(launcher: ProcessLauncher, events: Events) -> None:
    await launcher.start([attempt("flow:leave", inputs={"status": 3})])
    end = await broken(events)
    assert (end.failure.owner, end.failure.kind) == (Owner.USER, "exited")
    assert end.failure.message == "exited with status 3 without a result"


async def test_leaving_politely(launcher: ProcessLauncher, events: Events) -> None:
    await launcher.start([attempt("flow:politely_leave")])
    end = await broken(events)
    assert (end.failure.owner, end.failure.kind) == (Owner.USER, "exited")
    assert "status 4" in end.failure.message


async def test_a_crash_costs_one_worker(launcher: ProcessLauncher, events: Events) -> None:
    others = [attempt("flow:double", node=f"n{i}", inputs={"x": i}) for i in range(60)]
    await launcher.start([*others[:30], attempt("flow:crash", node="bad"), *others[30:]])
    found = ends(await until_ended(events, 61))
    bad = found.pop("bad")
    assert isinstance(bad, Broke)
    assert (bad.failure.owner, bad.failure.kind) == (Owner.USER, "exited")
    assert "SIGSEGV" in bad.failure.message
    assert all(isinstance(end, Finished) for end in found.values())


async def test_a_kill_from_outside_is_the_systems(
    region: Region, launcher: ProcessLauncher, events: Events
) -> None:
    mark = region.marks / "pid"
    await launcher.start([attempt("flow:say_and_sleep", inputs={"mark": str(mark), "seconds": 60})])
    os.kill(int(await appears(mark)), signal.SIGKILL)
    end = await broken(events)
    assert (end.failure.owner, end.failure.kind) == (Owner.SYSTEM, "worker_lost")
    assert content(end.logs.stdout) == f"hello from {mark}\n"


async def test_a_module_that_raises_on_import(
    region: Region, launcher: ProcessLauncher, events: Events
) -> None:
    region.write("import nowhere_to_be_found\n", module="bad")
    await launcher.start([attempt("bad:main", node=f"n{i}") for i in range(3)])
    found = ends(await until_ended(events, 3))
    for end in found.values():
        assert isinstance(end, Broke)
        assert (end.failure.owner, end.failure.kind) == (Owner.USER, "import")
        assert "nowhere_to_be_found" in end.failure.message
        assert "bad.py" in end.failure.traceback
        assert "runtime.py" not in end.failure.traceback
    await launcher.start([attempt("flow:double", inputs={"x": 1})])
    assert isinstance(await one_end(events), Finished)


async def test_a_module_that_exits_on_import(
    region: Region, launcher: ProcessLauncher, events: Events
) -> None:
    region.write("import os\nos._exit(9)\n", module="gone")
    await launcher.start([attempt("gone:main")])
    end = await broken(events)
    assert (end.failure.owner, end.failure.kind) == (Owner.USER, "import")
    assert "status 9" in end.failure.message


async def test_a_task_that_is_not_there(launcher: ProcessLauncher, events: Events) -> None:
    await launcher.start([attempt("flow:missing")])
    end = await broken(events)
    assert (end.failure.owner, end.failure.kind) == (Owner.USER, "import")
    assert "missing" in end.failure.message
