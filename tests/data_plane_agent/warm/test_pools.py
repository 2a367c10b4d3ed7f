"""Warm pods with real processes behind real sockets: work, faults, an agent that restarts."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from whimbrel.runtime_frames import Decoder, encode
from whimbrel.spec import Failure, Owner

from data_plane_agent.launcher import AttemptEvent, Broke, Finished, Found, Saved, Started
from data_plane_agent.warm import pools
from data_plane_agent.warm.pools import WarmPools
from data_plane_agent.warm.sight import NoPod
from tests.data_plane_agent.processes.under_test import ends, until_ended
from tests.data_plane_agent.warm.under_test import (
    SETTINGS,
    Region,
    eventually,
    region,
    until,
)

pytestmark = pytest.mark.anyio

FLOW = """
    import os, sys, time
    from pathlib import Path
    from whimbrel import File, current_context, task

    @task
    def double(x: int) -> int:
        return 2 * x

    @task
    def who() -> list[str]:
        return [str(os.getppid()), os.environ.get("COLOUR", "")]

    @task
    def talks() -> int:
        print("hello")
        return 1

    @task
    def crash() -> int:
        os.kill(os.getpid(), 11)
        time.sleep(60)
        return 1

    @task
    def until(mark: str) -> int:
        print("waiting")
        Path(mark + ".begun").write_text(str(os.getppid()))
        while not Path(mark).exists():
            time.sleep(0.005)
        return 7

    @task
    def produce() -> File:
        Path("made.txt").write_text("some text")
        return File("made.txt")

    @task
    def consume(file: File) -> str:
        return file.open().read().upper()

    @task
    def saves() -> str:
        checkpoint = current_context().checkpoint
        found = checkpoint.read()
        checkpoint.write(b"so far")
        return found.decode() if found else "nothing"
"""


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Region]:
    with region(tmp_path, FLOW) as made:
        try:
            yield made
        finally:
            await made.pods.end()


def value(end: Finished | Broke) -> Any:
    assert isinstance(end, Finished), end
    return json.loads(end.outputs.value)["o0"]


async def begun(agent: WarmPools) -> AsyncIterator[Sequence[AttemptEvent]]:
    events = agent.watch()
    assert await anext(events) == [Found({})]
    return events


async def test_tasks_share_a_pod_and_each_is_told_once(here: Region) -> None:
    async with here.agent(replace(SETTINGS, most=1)) as agent:
        events = await begun(agent)
        attempts = [here.attempt("double", node=f"n{i}", inputs={"x": i}) for i in range(50)]
        await agent.start(attempts[:1])
        seen = await until_ended(events, 1)
        await agent.start(attempts[1:])
        await agent.start(attempts[1:])  # a known key is ignored
        seen += await until_ended(events, 49)
        assert [type(event) for event in seen].count(Finished) == 50
        assert {node: value(end) for node, end in ends(seen).items()} == {
            f"n{i}": 2 * i for i in range(50)
        }
        assert all(end.input_digest == f"digest {node}" and end.host == "node-1"
                   for node, end in ends(seen).items() if isinstance(end, Finished))  # fmt: skip
        assert len(here.pods.made) == 1
        assert agent.counts() == (0, 0)


async def test_two_pools_share_nothing(here: Region) -> None:
    async with here.agent() as agent:
        events = await begun(agent)
        await agent.start([
            here.attempt("who", node="a"),
            here.attempt("who", node="b", project="other"),
            here.attempt("who", node="c", environment={"COLOUR": "red"}),
        ])  # fmt: skip
        told = {node: value(end) for node, end in ends(await until_ended(events, 3)).items()}
        assert len({process for process, _ in told.values()}) == 3
        assert [told[node][1] for node in "abc"] == ["", "", "red"]


async def test_files_output_and_checkpoints_go_through_the_store(here: Region) -> None:
    async with here.agent() as agent:
        events = await begun(agent)
        await agent.start([here.attempt("produce", node="a"), here.attempt("saves", node="b")])
        seen = await until_ended(events, 2)
        made = ends(seen)["a"]
        assert isinstance(made, Finished)
        (file,) = made.outputs.artifacts
        assert file.uri.startswith("s3://b/p/d/run/a/1/7/")
        (saved,) = [event for event in seen if isinstance(event, Saved)]
        assert saved.key.node == "b"
        resumed = replace(here.attempt("saves", node="b", number=2), checkpoint=saved.artifact)
        await agent.start([resumed, here.attempt("talks", node="d")])
        again = ends(await until_ended(events, 2))
        assert value(again["b"]) == "so far"
        logs = again["d"].logs
        assert logs.stdout is not None
        assert logs.stderr is None
        text = here.server.objects[logs.stdout.uri.removeprefix("s3://")]
        assert text == b"hello\n"
        document = {"file": json.loads(made.outputs.value)["o0"]}
        await agent.start([here.attempt("consume", node="e", inputs=document)])
        assert value(ends(await until_ended(events, 1))["e"]) == "SOME TEXT"


async def test_a_crash_and_a_time_limit_break_their_own_task_only(here: Region) -> None:
    async with here.agent(replace(SETTINGS, most=1)) as agent:
        events = await begun(agent)
        mark = str(here.folder / "never")
        await agent.start([
            here.attempt("crash", node="a"),
            here.attempt("until", node="b", inputs={"mark": mark}, timeout=1.0),
            here.attempt("double", node="c", inputs={"x": 1}),
        ])  # fmt: skip
        told = ends(await until_ended(events, 3))
        crashed, late = told["a"], told["b"]
        assert isinstance(crashed, Broke)
        assert isinstance(late, Broke)
        assert (crashed.failure.owner, crashed.failure.kind) == (Owner.USER, "exited")
        assert (late.failure.kind, late.failure.node) == ("timeout", "b")
        assert value(told["c"]) == 2
        assert len(here.pods.made) == 1


async def test_cancel_ends_what_runs_and_nothing_is_told(here: Region) -> None:
    async with here.agent(replace(SETTINGS, most=1)) as agent:
        events = await begun(agent)
        runs = here.attempt("until", node="a", inputs={"mark": str(here.folder / "never")})
        waits = here.attempt("double", node="b", inputs={"x": 1})
        await agent.start([runs])
        await until(events, lambda seen: any(isinstance(event, Started) for event in seen))
        await agent.start([waits])
        await agent.cancel([runs.key, waits.key])
        assert agent.counts() == (0, 0)
        await agent.start([here.attempt("double", node="c", inputs={"x": 3})])
        seen = await until_ended(events, 1)
        assert {event.key.node for event in seen if not isinstance(event, Found)} == {"c"}


async def test_short_ones_behind_a_long_one_are_asked_back(here: Region) -> None:
    """Handed out ahead while the row was short; no other task waits for the long one."""
    async with here.agent(replace(SETTINGS, most=2)) as agent:
        events = await begun(agent)
        mark = here.folder / "go"
        await agent.start(
            [here.attempt("double", node=f"w{i}", inputs={"x": 1}) for i in range(40)]
        )
        await until_ended(events, 40)
        for pool in agent.pools.values():
            pool.lane("flow:until").seconds = 0.0  # as if it had been short so far
        long = here.attempt("until", node="long", inputs={"mark": str(mark)})
        short = [here.attempt("double", node=f"s{i}", inputs={"x": i}) for i in range(20)]
        await agent.start([long, *short])
        seen = await until_ended(events, 20)
        assert set(ends(seen)) == {f"s{i}" for i in range(20)}
        mark.touch()
        assert value(ends(await until_ended(events, 1))["long"]) == 7


async def test_a_pod_that_dies_breaks_what_had_begun_and_the_rest_runs_elsewhere(
    here: Region,
) -> None:
    async with here.agent(replace(SETTINGS, most=1)) as agent:
        events = await begun(agent)
        runs = here.attempt("until", node="a", inputs={"mark": str(here.folder / "never")})
        await agent.start([runs])
        await until(events, lambda seen: any(isinstance(event, Started) for event in seen))
        await agent.start([here.attempt("double", node="b", inputs={"x": 1})])
        here.pods.kill(*here.pods.made)
        told = ends(await until_ended(events, 2))
        broke = told["a"]
        assert isinstance(broke, Broke)
        assert (broke.failure.owner, broke.failure.kind) == (Owner.SYSTEM, "node_lost")
        assert (broke.failure.node, broke.host) == ("a", "node-1")
        assert value(told["b"]) == 2


async def test_output_is_read_while_a_task_runs(here: Region) -> None:
    async with here.agent() as agent:
        events = await begun(agent)
        runs = here.attempt("until", node="a", inputs={"mark": str(here.folder / "go")})
        await agent.start([runs])
        await eventually((here.folder / "go.begun").exists)
        await until(events, lambda seen: any(isinstance(event, Started) for event in seen))
        assert await agent.read_log(runs.key, "stdout", offset=3, limit=4) == (b"ting", False)
        assert await agent.read_log(runs.key, "stderr", offset=0, limit=4) == (b"", True)
        (here.folder / "go").touch()
        await until_ended(events, 1)


async def test_after_a_restart_what_runs_and_what_had_ended_is_found(here: Region) -> None:
    mark = here.folder / "go"
    async with here.agent(replace(SETTINGS, most=2)) as agent:
        events = await begun(agent)
        runs = here.attempt("until", node="runs", inputs={"mark": str(mark)})
        await agent.start([runs, here.attempt("double", node="ended", inputs={"x": 4})])
        await until_ended(events, 1)  # told, but nobody asked for more: not yet taken
        await eventually(Path(f"{mark}.begun").exists)
    async with here.agent(replace(SETTINGS, most=2)) as agent:
        events = agent.watch()
        found = await anext(events)
        assert found == [
            Found({runs.key: "digest runs", replace(runs.key, node="ended"): "digest ended"})
        ]
        assert value(ends(await until_ended(events, 1))["ended"]) == 8
        mark.touch()
        told = ends(await until_ended(events, 1))
        assert value(told["runs"]) == 7
        await agent.start([here.attempt("double", node="new", inputs={"x": 1})])
        await until_ended(events, 1)
    async with here.agent() as agent:
        (found,) = await anext(agent.watch())  # what was taken is found no more
        assert isinstance(found, Found)
        assert {key.node for key in found.running} <= {"new"}


async def test_a_restarted_agent_that_does_not_own_a_task_ends_it(here: Region) -> None:
    mark = here.folder / "go"
    async with here.agent() as agent:
        events = await begun(agent)
        runs = here.attempt("until", node="runs", inputs={"mark": str(mark)})
        await agent.start([runs])
        await eventually(Path(f"{mark}.begun").exists)
    async with here.agent() as agent:
        events = agent.watch()
        assert await anext(events) == [Found({runs.key: "digest runs"})]
        await agent.cancel([runs.key])
        await agent.start([here.attempt("double", node="b", inputs={"x": 1})])
        assert value(ends(await until_ended(events, 1))["b"]) == 2


async def test_a_line_that_breaks_loses_and_repeats_nothing(here: Region) -> None:
    async with here.agent(replace(SETTINGS, most=1)) as agent:
        events = await begun(agent)
        attempts = [here.attempt("double", node=f"n{i}", inputs={"x": i}) for i in range(200)]
        await agent.start(attempts)
        seen = await until_ended(events, 20)
        for _ in range(3):
            agent.door.hang_up()
            seen += await until_ended(events, 20)
        missing = 200 - sum(isinstance(event, Finished) for event in seen)
        seen += await until_ended(events, missing)
        assert [event for event in seen if isinstance(event, Broke)] == []
        assert len(ends(seen)) == 200


@pytest.mark.parametrize("what", ["token", "pod", "pool", "v"])
async def test_a_stranger_is_hung_up_on(here: Region, what: str) -> None:
    async with here.agent() as agent:
        events = await begun(agent)
        await agent.start([here.attempt("double", inputs={"x": 1})])
        await until_ended(events, 1)
        (pod,) = here.pods.made.values()
        hello = {"t": "warm", "v": 1, "pool": pod.pool.id, "pod": pod.name, "token": pod.token}
        hello |= {"ready": True, "leaving": False, "running": None, "kept": [], "last": 0}
        right = await _answer(agent.port, hello)
        assert right == "welcome"
        assert await _answer(agent.port, hello | {what: "wrong"}) == ""


async def _answer(port: int, hello: dict[str, Any]) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(encode(hello))
        async with asyncio.timeout(10):
            data = await reader.read(65536)
        for message in Decoder().feed(data):
            return message["t"]
        return ""
    except ConnectionError:
        return ""
    finally:
        writer.close()


async def test_a_pod_that_is_not_needed_ends(here: Region) -> None:
    async with here.agent(replace(SETTINGS, idle_seconds=0.2)) as agent:
        events = await begun(agent)
        await agent.start([here.attempt("double", inputs={"x": 1})])
        await until_ended(events, 1)
        asyncio.ensure_future(anext(events))  # noqa: RUF006  takes the end
        await eventually(lambda: not here.pods.made)
        assert agent.counts() == (0, 0)


async def test_a_pod_that_is_asked_to_leave_gives_back_what_it_has_not_begun(here: Region) -> None:
    async with here.agent(replace(SETTINGS, most=1)) as agent:
        events = await begun(agent)
        mark = here.folder / "go"
        await agent.start([here.attempt("until", node="a", inputs={"mark": str(mark)})])
        await eventually(Path(f"{mark}.begun").exists)
        (old,) = here.pods.made
        here.pods.kill(old, signal.SIGTERM)
        await agent.start([here.attempt("double", node="b", inputs={"x": 1})])
        assert value(ends(await until_ended(events, 1))["b"]) == 2
        mark.touch()
        assert value(ends(await until_ended(events, 1))["a"]) == 7


async def test_a_pool_that_does_not_work_gives_its_tasks_to_pods_of_their_own(
    here: Region,
) -> None:
    refusal = Failure(Owner.CONFIG, "admission", "no")
    here.pods.refuse = NoPod(refusal, passing=False)
    async with here.agent() as agent:
        await begun(agent)
        attempt = here.attempt("double", inputs={"x": 1})
        assert agent.takes(attempt)
        await agent.start([attempt])
        await eventually(lambda: here.single == [attempt])
        assert agent.counts() == (0, 0)
        assert not agent.takes(here.attempt("double", node="b"))


async def test_a_pod_that_can_not_reach_the_door_is_given_up(
    here: Region, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pools, "START_SECONDS", 0.3)
    here.pods.door_open = False
    async with here.agent() as agent:
        await begun(agent)
        attempt = here.attempt("double", inputs={"x": 1})
        await agent.start([attempt])
        await eventually(lambda: here.single == [attempt])
        await eventually(lambda: not here.pods.made)


async def test_an_api_server_that_is_away_is_tried_again(here: Region) -> None:
    passing = Failure(Owner.SYSTEM, "admission", "away")
    here.pods.refuse = NoPod(passing, passing=True)
    async with here.agent() as agent:
        events = await begun(agent)
        await agent.start([here.attempt("double", inputs={"x": 1})])
        await asyncio.sleep(0.1)
        here.pods.refuse = None
        assert value(ends(await until_ended(events, 1))["n"]) == 2
        assert here.single == []


async def test_which_attempts_it_takes(here: Region) -> None:
    async with here.agent() as agent:
        assert agent.takes(here.attempt("double"))
        assert not agent.takes(here.attempt("double", warm=False))
        assert not agent.takes(here.attempt("double", image="forbidden"))
        assert not agent.takes(replace(here.attempt("double"), avoid=("node-1",)))
    async with here.agent(replace(SETTINGS, most=0)) as agent:
        assert not agent.takes(here.attempt("double"))
