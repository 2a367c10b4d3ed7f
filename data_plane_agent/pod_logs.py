"""What running pods write, for who asks: followed only while somebody reads, kept in a file so that
any part can be read again.

Used by `pods.py`, over `pod_api.py`'s log stream. A pod's log is one stream, as `kubectl logs`
shows it.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from data_plane_agent.pod_api import ApiError, PodApi

IDLE_SECONDS = 60.0
"""After the last reader a log is followed no more. Shorter begins anew for a slow reader, longer
holds a connection for nobody."""
MOST_BYTES = 16 * 1024 * 1024
FIRST_READ_SECONDS = 2.0
"""The first reader waits for the first bytes at most so long."""


@dataclass(slots=True)
class Tap:
    path: Path
    task: "asyncio.Task[None]"
    some: asyncio.Event
    read_at: float


class PodLogs:
    def __init__(
        self, api: PodApi, folder: Path, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
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
        tap.read_at = self._clock()
        return await asyncio.to_thread(_part, tap.path, offset, limit)

    def close(self, pod: str) -> None:
        tap = self._taps.pop(pod, None)
        if tap is not None:
            tap.task.cancel()
            tap.path.unlink(missing_ok=True)

    def end_idle(self) -> None:
        now = self._clock()
        for pod in [p for p, tap in self._taps.items() if now - tap.read_at > IDLE_SECONDS]:
            self.close(pod)

    async def end(self) -> None:
        tasks = [tap.task for tap in self._taps.values()]
        for pod in list(self._taps):
            self.close(pod)
        await asyncio.gather(*tasks, return_exceptions=True)

    async def whole(self, pod: str) -> bytes:
        """All of it, as far as the API server still has it; empty when it does not."""
        data = bytearray()
        try:
            async for chunk in self._api.log(pod, follow=False, limit_bytes=MOST_BYTES):
                data += chunk
        except ApiError:
            return bytes(data)
        return bytes(data)

    def _open(self, pod: str) -> Tap:
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{pod}.log"
        some = asyncio.Event()
        task = asyncio.create_task(self._follow(pod, path, some), name=f"log of {pod}")
        tap = self._taps[pod] = Tap(path, task, some, self._clock())
        return tap

    async def _follow(self, pod: str, path: Path, some: asyncio.Event) -> None:
        """A broken stream begins anew: the bytes are the same."""
        while True:
            size = 0
            with contextlib.suppress(ApiError), path.open("wb", buffering=0) as file:
                async for chunk in self._api.log(pod, follow=True, limit_bytes=MOST_BYTES):
                    file.write(chunk)
                    size += len(chunk)
                    some.set()
                return
            await asyncio.sleep(1.0)


def _part(path: Path, offset: int, limit: int) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(limit)
    except FileNotFoundError:
        return b""
