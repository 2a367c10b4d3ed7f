"""Real tasks in real worker processes: each way to end, logs, limits, cancel, many at once."""

import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from whimbrel.archive import pack
from whimbrel.spec import INLINE_LIMIT, Artifact, Owner, Resources

from data_plane_agent.launcher import Broke, Finished, Found, Saved, Started
from data_plane_agent.processes import ProcessLauncher
from tests.data_plane_agent.processes_under_test import (
    Events,
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
    import os, sys, time, subprocess
    from whimbrel import File, current_context, task

    print("imported")

    @task
    def double(x: int) -> int:
        return 2 * x

    @task
    def big(size: int) -> str:
        return "x" * size

    @task
    def inner_raise() -> int:
        def deeper():
            raise ValueError("no such luck\\nsecond line")
        return deeper()

    @task
    def leave(status: int) -> int:
        os._exit(status)

    @task
    def politely_leave() -> int:
        sys.exit(4)

    @task
    def crash() -> int:
        os.kill(os.getpid(), 11)
        time.sleep(60)
        return 1

    @task
    def say_and_sleep(mark: str, seconds: float) -> int:
        print("hello from", mark)
        print("a complaint", file=sys.stderr)
        with open(mark, "w") as file:
            file.write(f"{os.getpid()}\\n")
        time.sleep(seconds)
        print("done")
        return os.getpid()

    @task
    def quiet() -> int:
        return os.getpid()

    @task
    def chatty(line: str) -> int:
        print(line)
        subprocess.run(["sh", "-c", "echo from a child"])
        return 0

    @task
    def hoard(mebibytes: int) -> int:
        block = bytearray(mebibytes << 20)
        time.sleep(60)
        return len(block)

    @task
    def greedy() -> int:
        raise MemoryError

    @task
    def produce(text: str) -> File:
        with open("made.txt", "w") as file:
            file.write(text)
        return File("made.txt")

    @task
    def consume(file: File) -> str:
        with file.open() as opened:
            return opened.read().upper()

    @task
    def remember(value: str) -> str:
        checkpoint = current_context().checkpoint
        found = checkpoint.read()
        checkpoint.write(value.encode())
        return found.decode() if found else "nothing"

    @task
    def surroundings() -> dict[str, str]:
        names = ["IDEMPOTENCY_KEY", "EPOCH", "WHIMBREL_EXECUTION", "WHIMBREL_NODE",
                 "WHIMBREL_ATTEMPT", "WHIMBREL_REGION", "TRACEPARENT", "COLOUR"]
        return {name: os.environ.get(name, "") for name in names}
"""


@pytest.fixture
def region(tmp_path: Path) -> Region:
    region = Region(tmp_path)
    region.write(FLOW)
    return region


@pytest.fixture
async def launcher(region: Region) -> AsyncIterator[ProcessLauncher]:
    launcher = region.launcher()
    await launcher.open()
    yield launcher
    await launcher.close(kill=True)


@pytest.fixture
async def events(launcher: ProcessLauncher) -> Events:
    events = launcher.watch()
    assert await anext(events) == [Found({})]
    return events


async def one_end(events: Events) -> Finished | Broke:
    return next(iter(ends(await until_ended(events, 1)).values()))


async def broken(events: Events) -> Broke:
    end = await one_end(events)
    assert isinstance(end, Broke)
    return end


def content(artifact: Artifact | None) -> str:
    assert artifact is not None
    data = Path(urlsplit(artifact.uri).path).read_bytes()
    assert len(data) == artifact.bytes
    return data.decode()


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


async def test_a_large_result_becomes_an_object(launcher: ProcessLauncher, events: Events) -> None:
    await launcher.start([attempt("flow:big", inputs={"size": INLINE_LIMIT + 1})])
    end = await one_end(events)
    assert isinstance(end, Finished)
    assert end.outputs.value == ""
    assert end.outputs.offloaded is not None
    assert end.outputs.offloaded.kind == "value"
    assert "/store/p/d/run/n/1/7/" in end.outputs.offloaded.uri
    assert json.loads(content(end.outputs.offloaded))["o0"].startswith("xxx")


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


async def test_a_timeout_kills(region: Region, launcher: ProcessLauncher, events: Events) -> None:
    mark = region.marks / "pid"
    inputs = {"mark": str(mark), "seconds": 60}
    await launcher.start([attempt("flow:say_and_sleep", inputs=inputs, timeout=0.3)])
    seen = await until_ended(events, 1)
    end = ends(seen)["n"]
    assert isinstance(end, Broke)
    assert (end.failure.owner, end.failure.kind) == (Owner.USER, "timeout")
    assert "0.3 s" in end.failure.message
    assert any(isinstance(event, Started) for event in seen)
    assert content(end.logs.stderr) == "a complaint\n"
    assert not alive(int(mark.read_text()))


async def test_memory_over_the_limit_kills(launcher: ProcessLauncher, events: Events) -> None:
    limits = Resources(mem_bytes=150 << 20)
    await launcher.start([attempt("flow:hoard", inputs={"mebibytes": 300}, limits=limits)])
    end = await broken(events)
    assert (end.failure.owner, end.failure.kind) == (Owner.USER, "oom")
    assert "its limit is 150 MiB" in end.failure.message


async def test_memory_error_is_oom(launcher: ProcessLauncher, events: Events) -> None:
    await launcher.start([attempt("flow:greedy")])
    end = await broken(events)
    assert (end.failure.owner, end.failure.kind) == (Owner.USER, "oom")


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


async def test_each_task_has_its_own_output(launcher: ProcessLauncher, events: Events) -> None:
    tasks = [attempt("flow:chatty", node=f"n{i}", inputs={"line": f"line {i}"}) for i in range(20)]
    await launcher.start([*tasks, attempt("flow:quiet", node="quiet")])
    found = ends(await until_ended(events, 21))
    assert found.pop("quiet").logs.stdout is None
    for node, end in found.items():
        assert content(end.logs.stdout) == f"line {node[1:]}\nfrom a child\n"
        assert end.logs.stderr is None


async def test_a_running_tasks_output_can_be_read(
    region: Region, launcher: ProcessLauncher, events: Events
) -> None:
    mark = region.marks / "pid"
    task = attempt("flow:say_and_sleep", inputs={"mark": str(mark), "seconds": 60})
    await launcher.start([task])
    await appears(mark)
    data, end = await launcher.read_log(task.key, "stdout", offset=0, limit=1000)
    assert (data, end) == (f"hello from {mark}\n".encode(), False)
    data, _ = await launcher.read_log(task.key, "stdout", offset=6, limit=4)
    assert data == b"from"
    await launcher.cancel([task.key])
    assert await launcher.read_log(task.key, "stdout", offset=0, limit=10) == (b"", True)


async def test_cancel_stops_and_says_nothing(
    region: Region, launcher: ProcessLauncher, events: Events
) -> None:
    marks = [region.marks / f"pid{i}" for i in range(2)]
    running = [
        attempt("flow:say_and_sleep", node=f"r{i}", inputs={"mark": str(mark), "seconds": 60})
        for i, mark in enumerate(marks)
    ]
    queued = [attempt("flow:double", node=f"q{i}", inputs={"x": i}) for i in range(3)]
    await launcher.start([*running, *queued])
    for mark in marks:
        await appears(mark)
    await launcher.cancel([running[0].key, running[1].key, queued[0].key])
    seen = await until_ended(events, 2)
    assert set(ends(seen)) == {"q1", "q2"}
    pids = [int(mark.read_text()) for mark in marks]
    await eventually(lambda: not any(map(alive, pids)))
    await launcher.start([attempt("flow:double", node="q0", inputs={"x": 5})])
    assert isinstance((await until_ended(events, 1))[-1], Finished)


async def test_short_tasks_never_wait_behind_a_long_one(
    region: Region, launcher: ProcessLauncher, events: Events
) -> None:
    mark = region.marks / "pid"
    short = [attempt("flow:double", node=f"s{i}", inputs={"x": i}) for i in range(100)]
    long = attempt("flow:say_and_sleep", node="long", inputs={"mark": str(mark), "seconds": 60})
    await launcher.start(short)
    await until_ended(
        events, 100
    )  # learns that the lane is fast: the next ones are handed out ahead
    more = [attempt("flow:double", node=f"t{i}", inputs={"x": i}) for i in range(100)]
    await launcher.start([*more[:8], long, *more[8:]])
    found = ends(await until_ended(events, 100))
    assert "long" not in found
    assert len(found) == 100


async def test_requests_bound_what_runs_at_once(region: Region) -> None:
    launcher = region.launcher(slots=4, cpu=4.0, mem_bytes=100)
    await launcher.open()
    events = launcher.watch()
    await anext(events)
    marks = [region.marks / f"m{i}" for i in range(2)]
    wide = [
        attempt(
            "flow:say_and_sleep",
            node=f"n{i}",
            inputs={"mark": str(mark), "seconds": 0.2},
            requests=Resources(mem_bytes=60),
        )
        for i, mark in enumerate(marks)
    ]
    await launcher.start(wide)
    await appears(marks[0])
    assert launcher.capacity().free == Resources(cpu=3.0, mem_bytes=40)
    first, second = sorted(
        ends(await until_ended(events, 2)).values(), key=lambda end: end.started_ns
    )
    assert first.ended_ns <= second.started_ns
    await launcher.close(kill=True)


async def test_the_environment_of_a_task(launcher: ProcessLauncher, events: Events) -> None:
    await launcher.start([attempt("flow:surroundings", environment={"COLOUR": "blue"})])
    end = await one_end(events)
    assert isinstance(end, Finished)
    assert json.loads(end.outputs.value)["o0"] == {
        "IDEMPOTENCY_KEY": "p/d/run/n",
        "EPOCH": "7",
        "WHIMBREL_EXECUTION": "p/d/run",
        "WHIMBREL_NODE": "n",
        "WHIMBREL_ATTEMPT": "1",
        "WHIMBREL_REGION": "us-east",
        "TRACEPARENT": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "COLOUR": "blue",
    }


async def test_idle_families_end(region: Region) -> None:
    launcher = region.launcher(idle_seconds=0.1)
    await launcher.open()
    events = launcher.watch()
    await anext(events)
    await launcher.start([attempt("flow:quiet")])
    end = await one_end(events)
    assert isinstance(end, Finished)
    pid = json.loads(end.outputs.value)["o0"]
    await eventually(lambda: not alive(pid))
    await launcher.start([attempt("flow:double", node="later", inputs={"x": 1})])
    assert isinstance(await one_end(events), Finished)
    await launcher.close(kill=True)


async def test_a_file_goes_from_task_to_task(launcher: ProcessLauncher, events: Events) -> None:
    await launcher.start([attempt("flow:produce", inputs={"text": "hello"})])
    made = await one_end(events)
    assert isinstance(made, Finished)
    (artifact,) = made.outputs.artifacts
    assert artifact.region == "us-east"
    assert "/store/p/d/run/n/1/7/" in artifact.uri
    value = json.loads(made.outputs.value)["o0"]
    await launcher.start([attempt("flow:consume", node="reader", inputs={"file": value})])
    read = await one_end(events)
    assert isinstance(read, Finished)
    assert json.loads(read.outputs.value) == {"o0": "HELLO"}
    Path(urlsplit(artifact.uri).path).unlink()
    await launcher.start([attempt("flow:consume", node="late", inputs={"file": value})])
    lost = await broken(events)
    assert (lost.failure.owner, lost.failure.kind) == (Owner.SYSTEM, "unreadable_input")
    assert lost.unreadable == (artifact.uri,)


async def test_a_store_that_takes_nothing(
    region: Region, launcher: ProcessLauncher, events: Events
) -> None:
    (region.root / "store").rmdir()
    (region.root / "store").write_text("no folder")
    await launcher.start([attempt("flow:produce", inputs={"text": "hello"})])
    end = await broken(events)
    assert (end.failure.owner, end.failure.kind) == (Owner.SYSTEM, "store_full")


async def test_a_checkpoint_is_told_and_resumed(launcher: ProcessLauncher, events: Events) -> None:
    await launcher.start([attempt("flow:remember", inputs={"value": "half"})])
    seen = await until_ended(events, 1)
    (saved,) = [event for event in seen if isinstance(event, Saved)]
    assert content(saved.artifact) == "half"
    second = attempt("flow:remember", number=2, inputs={"value": "rest"}, checkpoint=saved.artifact)
    await launcher.start([second])
    end = await one_end(events)
    assert isinstance(end, Finished)
    assert json.loads(end.outputs.value) == {"o0": "half"}


async def test_an_archive_is_unpacked_once(region: Region) -> None:
    archive = region.root / "b1.tar"
    with archive.open("wb") as file:
        pack([("flow.py", region.code / "flow.py")], file)

    async def fetch(digest: str) -> Path:
        return archive

    launcher = ProcessLauncher(region.launcher().settings, fetch_bundle=fetch)
    await launcher.open()
    events = launcher.watch()
    await anext(events)
    await launcher.start([attempt("flow:double", inputs={"x": 2})])
    assert isinstance(await one_end(events), Finished)
    assert (region.root / "agent" / "bundles" / "b1" / "flow.py").exists()
    await launcher.close(kill=True)


async def test_a_bundle_that_is_no_archive(region: Region) -> None:
    archive = region.root / "b1.tar"
    archive.write_text("this is no archive")

    async def fetch(digest: str) -> Path:
        return archive

    launcher = ProcessLauncher(region.launcher().settings, fetch_bundle=fetch)
    await launcher.open()
    events = launcher.watch()
    await anext(events)
    await launcher.start([attempt("flow:double", inputs={"x": 2})])
    end = await broken(events)
    assert (end.failure.owner, end.failure.kind) == (Owner.USER, "import")
    assert "archive" in end.failure.message
    await launcher.close(kill=True)
