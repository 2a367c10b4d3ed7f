"""What running pods write, for who asks: followed only while somebody reads, kept in a file so that
any part can be read again.

Used by `launcher.py`, over `api.py`'s log stream. A pod's log is one stream, as `kubectl logs`
shows it.
"""

import asyncio
import contextlib
import shutil
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path

from data_plane_agent.pods.api import ApiError, PodApi
from data_plane_agent.pods.clock import REAL, Clock

IDLE_SECONDS = 60.0
"""After the last reader a log is followed no more. Shorter begins anew for a slow reader, longer
holds a connection for nobody."""
MOST_BYTES = 16 * 1024 * 1024
AGAIN_SECONDS = 10.0
"""A stream that ended though its pod runs on is followed again. Shorter reads a long log again and
again, longer lets a reader wait."""
FIRST_READ_SECONDS = 2.0
"""The first reader waits for the first bytes at most so long."""


@dataclass(slots=True)
class Tap:
    path: Path
    some: asyncio.Event
    read_at: float
    begun_at: float = 0.0
    task: "asyncio.Task[None] | None" = None


class PodLogs:
    def __init__(self, api: PodApi, folder: Path, *, clock: Clock = REAL) -> None:
        self._api = api
        self._folder = folder
        self._clock = clock
        self._taps: dict[str, Tap] = {}

    async def read(self, pod: str, *, offset: int, limit: int) -> bytes:
        tap = self._taps.get(pod)
        if tap is None:
            tap = self._open(pod)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(tap.some.wait(), FIRST_READ_SECONDS)
        tap.read_at = self._clock.now()
        if tap.task and tap.task.done() and tap.read_at - tap.begun_at > AGAIN_SECONDS:
            self._begin(pod, tap)  # whoever asks says that the pod runs
        return await asyncio.to_thread(_part, tap.path, offset, limit)

    def close(self, pod: str) -> None:
        tap = self._taps.pop(pod, None)
        if tap is not None:
            if tap.task is not None:
                tap.task.cancel()
            tap.path.unlink(missing_ok=True)

    def end_idle(self) -> None:
        now = self._clock.now()
        for pod in [p for p, tap in self._taps.items() if now - tap.read_at > IDLE_SECONDS]:
            self.close(pod)

    async def end(self) -> None:
        tasks = [tap.task for tap in self._taps.values() if tap.task is not None]
        for pod in list(self._taps):
            self.close(pod)
        await asyncio.gather(*tasks, return_exceptions=True)

    @contextlib.asynccontextmanager
    async def whole(self, pod: str, *, seconds: float) -> AsyncGenerator[Path | None]:
        """A file, for as long as it is looked at, with what the API server still has of it, or what
        readers have seen of it, if that is more. None: nothing."""
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{pod}.whole"
        try:
            size = 0
            with contextlib.suppress(ApiError, TimeoutError), path.open("wb") as file:
                async with asyncio.timeout(seconds):
                    async for chunk in self._api.log(pod, follow=False, limit_bytes=MOST_BYTES):
                        size += file.write(chunk)
            tap = self._taps.get(pod)
            if tap is not None and tap.path.stat().st_size > size:
                size = await asyncio.to_thread(_copy, tap.path, path)
            yield path if size else None
        finally:
            path.unlink(missing_ok=True)

    def _open(self, pod: str) -> Tap:
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{pod}.log"
        path.unlink(missing_ok=True)
        path.touch()
        tap = self._taps[pod] = Tap(path, asyncio.Event(), self._clock.now())
        self._begin(pod, tap)
        return tap

    def _begin(self, pod: str, tap: Tap) -> None:
        tap.begun_at = self._clock.now()
        tap.task = asyncio.create_task(self._follow(pod, tap), name=f"log of {pod}")

    async def _follow(self, pod: str, tap: Tap) -> None:
        """A broken stream begins anew, over what is there: the bytes are the same."""
        while True:
            with contextlib.suppress(ApiError), tap.path.open("r+b", buffering=0) as file:
                async for chunk in self._api.log(pod, follow=True, limit_bytes=MOST_BYTES):
                    file.write(chunk)
                    tap.some.set()
                return
            await self._clock.sleep(1.0)


def _copy(source: Path, target: Path) -> int:
    """Its own copy: somebody may still write to `source`."""
    return shutil.copyfile(source, target).stat().st_size


def _part(path: Path, offset: int, limit: int) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(limit)
    except FileNotFoundError:
        return b""
