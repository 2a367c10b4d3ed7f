"""What goes in and out of a task beside its values: code, files, checkpoints, logs, environment."""

import json
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from whimbrel.archive import pack
from whimbrel.spec import INLINE_LIMIT, Owner

from data_plane_agent.launcher import Finished, Saved
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


async def test_a_large_result_becomes_an_object(launcher: ProcessLauncher, events: Events) -> None:
    await launcher.start([attempt("flow:big", inputs={"size": INLINE_LIMIT + 1})])
    end = await one_end(events)
    assert isinstance(end, Finished)
    assert end.outputs.value == ""
    assert end.outputs.offloaded is not None
    assert end.outputs.offloaded.kind == "value"
    assert "/store/p/d/run/n/1/7/" in end.outputs.offloaded.uri
    assert json.loads(content(end.outputs.offloaded))["o0"].startswith("xxx")


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
