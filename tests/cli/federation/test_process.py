"""Servers are started again when they die, agents are not; leftovers of a killed supervisor end."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from whimbrel.cli.federation.faults import families_of, kill_again
from whimbrel.cli.federation.parts import Part
from whimbrel.cli.federation.process import Process

pytestmark = pytest.mark.anyio
FOREVER = (sys.executable, "-c", "import time; time.sleep(600)")


class Story:
    """Hears of every new pid and every death."""

    def __init__(self) -> None:
        self.changes: asyncio.Queue[None] = asyncio.Queue()

    def changed(self) -> None:
        self.changes.put_nowait(None)

    async def next(self) -> None:
        async with asyncio.timeout(30):
            await self.changes.get()


async def test_a_server_that_dies_is_started_again(tmp_path: Path) -> None:
    story = Story()
    process = Process(Part("router", FOREVER, {}), tmp_path / "log", story.changed)
    await process.start()
    process.settled()
    await story.next()
    old = process.pid
    os.kill(old, signal.SIGKILL)
    await story.next()
    assert process.pid not in (0, old)
    await process.stop()
    assert process.pid == 0


async def test_an_agent_that_dies_stays_dead(tmp_path: Path) -> None:
    story = Story()
    process = Process(
        Part("agent/x", FOREVER, {}, restarted=False), tmp_path / "log", story.changed
    )
    await process.start()
    process.settled()
    await story.next()
    os.kill(process.pid, signal.SIGKILL)
    await story.next()
    assert process.pid == 0


async def test_one_that_can_not_start_shows_its_last_words(tmp_path: Path) -> None:
    words = (sys.executable, "-c", "import sys; sys.exit('no such database')")
    process = Process(Part("control-plane", words, {}), tmp_path / "log", Story().changed)
    await process.start()
    async with asyncio.timeout(30):
        await process.ended()
    assert "no such database" in process.failure().message
    assert str(tmp_path / "log") in process.failure().remedy


async def test_long_last_words_are_shown_from_their_beginning(tmp_path: Path) -> None:
    code = (
        'import sys; print(\'{"level": "info"}\', file=sys.stderr); '
        "sys.exit('it may not create pods\\n' + 'rule\\n' * 20 + 'see it with kubectl')"
    )
    process = Process(
        Part("agent/x", (sys.executable, "-c", code), {}), tmp_path / "log", Story().changed
    )
    await process.start()
    async with asyncio.timeout(30):
        await process.ended()
    message = process.failure().message
    assert "it may not create pods" in message
    assert "see it with kubectl" in message
    assert "level" not in message


async def test_a_paused_process_is_stopped_too(tmp_path: Path) -> None:
    process = Process(Part("agent/x", FOREVER, {}), tmp_path / "log", Story().changed)
    await process.start()
    os.kill(process.pid, signal.SIGSTOP)
    await process.stop()
    assert process.pid == 0


def test_leftovers_are_ended_and_strangers_are_not() -> None:
    left, stranger = (subprocess.Popen(FOREVER) for _ in range(2))
    born = psutil.Process(left.pid).create_time()
    kill_again({left.pid: born, stranger.pid: time.time() - 1000, 0: 0.0})
    assert left.wait(10) == -signal.SIGKILL
    assert stranger.poll() is None
    stranger.kill()
    stranger.wait(10)


def test_a_family_is_found_by_the_folder_in_its_arguments(tmp_path: Path) -> None:
    arguments = json.dumps({"data_dir": str(tmp_path)})
    family, other = (
        subprocess.Popen((*FOREVER, text)) for text in (arguments, json.dumps({"data_dir": "/x"}))
    )
    assert families_of(tmp_path) == [family.pid]
    for process in (family, other):
        process.kill()
        process.wait(10)
