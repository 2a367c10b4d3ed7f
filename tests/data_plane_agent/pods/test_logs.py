"""Logs of running pods: followed while somebody reads, whole when nobody did."""

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any, cast

from data_plane_agent.launcher import Broke
from data_plane_agent.pods.api import ApiDown, Missing, PodApi
from data_plane_agent.pods.clock import Clock
from data_plane_agent.pods.logs import AGAIN_SECONDS, IDLE_SECONDS, PodLogs
from tests.data_plane_agent.pods.scene import attempt, scene
from tests.data_plane_agent.virtual_time import until, virtual


class Stream:
    """What each log call sends, and how it ends: an error, or None = the stream stays open."""

    def __init__(self, *calls: tuple[list[bytes], Any]) -> None:
        self.calls = list(calls)
        self.asked = 0
        self.open = 0

    async def log(
        self, name: str, *, follow: bool, limit_bytes: int | None = None
    ) -> AsyncGenerator[bytes]:
        self.asked += 1
        self.open += 1
        chunks, end = self.calls.pop(0) if len(self.calls) > 1 else self.calls[0]
        try:
            for chunk in chunks:
                await asyncio.sleep(0.01)
                yield chunk
            if isinstance(end, Exception):
                raise end
            if end is None and follow:
                await asyncio.Event().wait()
        finally:
            self.open -= 1


ENDS = "the stream ends"


def logs(folder: Path, stream: Stream) -> PodLogs:
    clock = Clock(now=asyncio.get_running_loop().time)
    return PodLogs(cast(PodApi, stream), folder / "logs", clock=clock)


@virtual
async def test_a_log_is_read_in_any_order(tmp_path: Path) -> None:
    stream = Stream(([b"hello ", b"world"], None))
    taps = logs(tmp_path, stream)
    assert (await taps.read("p", offset=0, limit=100)).startswith(b"hello ")
    await asyncio.sleep(1)
    assert await taps.read("p", offset=6, limit=3) == b"wor"
    assert await taps.read("p", offset=0, limit=100) == b"hello world"
    assert await taps.read("p", offset=11, limit=100) == b""
    assert stream.asked == 1
    await taps.end()
    assert stream.open == 0


@virtual
async def test_nobody_follows_for_nobody(tmp_path: Path) -> None:
    stream = Stream(([b"x"], None))
    taps = logs(tmp_path, stream)
    await taps.read("p", offset=0, limit=1)
    await asyncio.sleep(IDLE_SECONDS - 1)
    taps.end_idle()
    await asyncio.sleep(0)
    assert stream.open == 1
    await asyncio.sleep(2)
    taps.end_idle()
    await asyncio.sleep(0.1)
    assert stream.open == 0
    assert not list((tmp_path / "logs").iterdir())
    await taps.end()


@virtual
async def test_a_stream_that_breaks_begins_anew_over_what_is_there(tmp_path: Path) -> None:
    stream = Stream(([b"abc"], ApiDown("cut")), ([b"abc", b"def"], None))
    taps = logs(tmp_path, stream)
    assert await taps.read("p", offset=0, limit=9) == b"abc"
    await asyncio.sleep(5)
    assert await taps.read("p", offset=0, limit=9) == b"abcdef"
    await taps.end()


@virtual
async def test_a_stream_that_ends_too_early_is_followed_again(tmp_path: Path) -> None:
    stream = Stream(([b"abc"], ENDS), ([b"abc", b"def"], None))
    taps = logs(tmp_path, stream)
    assert await taps.read("p", offset=0, limit=9) == b"abc"
    await asyncio.sleep(AGAIN_SECONDS + 1)
    await taps.read("p", offset=0, limit=9)
    await asyncio.sleep(1)
    assert await taps.read("p", offset=0, limit=9) == b"abcdef"
    await taps.end()


@virtual
async def test_a_silent_log_keeps_no_reader(tmp_path: Path) -> None:
    taps = logs(tmp_path, Stream(([], None)))
    began = asyncio.get_running_loop().time()
    assert await taps.read("p", offset=0, limit=9) == b""
    assert asyncio.get_running_loop().time() - began < 5
    await taps.end()


@virtual
async def test_a_whole_log(tmp_path: Path) -> None:
    taps = logs(tmp_path, Stream(([b"a", b"b"], ENDS)))
    async with taps.whole("p", seconds=9) as path:
        assert path is not None
        assert path.read_bytes() == b"ab"
    assert not path.exists()
    gone = logs(tmp_path, Stream(([], Missing("no such pod", status=404))))
    async with gone.whole("p", seconds=9) as path:
        assert path is None


@virtual
async def test_what_a_reader_saw_of_a_log_that_is_gone(tmp_path: Path) -> None:
    taps = logs(tmp_path, Stream(([b"ab"], None), ([b"a"], None)))
    assert await taps.read("p", offset=0, limit=9) == b"ab"
    async with taps.whole("p", seconds=9) as path:  # the API server says a part and hangs
        assert path is not None
        assert path.read_bytes() == b"ab"
    await taps.end()


@virtual
async def test_what_the_seam_answers(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        one = attempt()

        async def read(stream: str = "stdout") -> tuple[bytes, bool]:
            return await here.launcher.read_log(one.key, stream, offset=0, limit=99)

        assert await read() == (b"", True)  # nobody knows it
        name = await here.start(one)
        assert await read() == (b"", False)  # it has not begun
        here.cluster.logs[name] = b"hello"
        here.cluster.runs(name)
        await asyncio.sleep(1)
        assert await read() == (b"hello", False)
        assert await read("stderr") == (b"", True)  # a pod has one stream
        await here.launcher.cancel([one.key])
        assert await read() == (b"", True)


@virtual
async def test_logs_of_many_pods_that_end_at_once(tmp_path: Path) -> None:
    """Are stored one after another: the agent holds a few of them, never all."""
    async with scene(tmp_path) as here:
        tries = [attempt(number) for number in range(1, 9)]
        await here.runs(*tries)
        await until(lambda: len(here.cluster.pods) == 8)
        log, open_now, most = here.cluster.log, 0, 0

        async def slow(name: str, **how: Any) -> AsyncGenerator[bytes]:
            nonlocal open_now, most
            open_now += 1
            most = max(most, open_now)
            try:
                await asyncio.sleep(1)
                async for chunk in log(name, **how):
                    yield chunk
            finally:
                open_now -= 1

        here.cluster.log = slow
        for name in list(here.cluster.pods):
            here.cluster.logs[name] = b"last words"
            here.cluster.ends(name, code=3)
        await until(lambda: len(here.ends) == 8)
        assert most == 2
        assert all(isinstance(end, Broke) and end.logs.stdout for end in here.ends)
        assert not list((tmp_path / "logs").glob("*.whole"))
