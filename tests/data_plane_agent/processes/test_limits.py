"""Limits and room: timeouts, memory, cancelling, requests, and who waits behind whom."""

import json

import pytest
from whimbrel.spec import Owner, Resources

from data_plane_agent.launcher import Broke, Finished, Started
from data_plane_agent.processes.launcher import ProcessLauncher
from tests.data_plane_agent.processes.under_test import (
    Events,
    Region,
    alive,
    appears,
    attempt,
    broken,
    content,
    ends,
    eventually,
    one_end,
    until_ended,
)

pytestmark = pytest.mark.anyio


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
