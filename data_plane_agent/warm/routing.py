"""One launcher out of two: warm tasks to pods that stay ready, all others to pods of their own.

Made by `compute.py` when the agent has a door; the engine sees one `Launcher`. What the warm pods
can't serve (`fall_back` of `pools.py`) is started as any other task.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Protocol

from whimbrel.spec import Resources

from data_plane_agent.blobs import Blobs
from data_plane_agent.launcher import (
    Attempt,
    AttemptEvent,
    AttemptKey,
    Capacity,
    Found,
    Launcher,
)
from data_plane_agent.warm.pools import WarmPools


class Single(Launcher, Protocol):
    """Who makes a pod for each attempt."""

    @property
    def blobs(self) -> Blobs: ...
    async def open(self) -> None: ...
    async def close(self, *, kill: bool) -> None: ...


class WarmLauncher:
    """Implements `Launcher`."""

    def __init__(self, single: Single, warm: WarmPools) -> None:
        self._single = single
        self._warm = warm

    @property
    def blobs(self) -> Blobs:
        return self._single.blobs

    async def open(self) -> None:
        await self._single.open()
        await self._warm.open()

    async def close(self, *, kill: bool) -> None:
        await self._warm.close(kill=kill)
        await self._single.close(kill=kill)

    async def start(self, attempts: Sequence[Attempt]) -> None:
        warm = [
            one
            for one in attempts
            if self._warm.knows(one.key) or (self._warm.takes(one) and not one.exclusive)
        ]
        keys = {one.key for one in warm}
        if warm:
            await self._warm.start(warm)
        if single := [one for one in attempts if one.key not in keys]:
            await self._single.start(single)

    async def watch(self) -> AsyncIterator[Sequence[AttemptEvent]]:
        streams = [self._single.watch(), self._warm.watch()]
        found: dict[AttemptKey, str] = {}
        for batch in await asyncio.gather(*(_next(stream) for stream in streams)):
            for event in batch:
                if isinstance(event, Found):
                    found.update(event.running)
        yield [Found(found)]
        waiting = {asyncio.ensure_future(_next(stream)): stream for stream in streams}
        try:
            while True:
                done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    stream = waiting.pop(task)
                    yield task.result()
                    # Only now: asking for the next batch says that this one was taken.
                    waiting[asyncio.ensure_future(_next(stream))] = stream
        finally:
            for task in waiting:
                task.cancel()
                with suppress(asyncio.CancelledError, StopAsyncIteration):
                    await task

    def taken(self, keys: Sequence[AttemptKey]) -> None:
        self._single.taken(keys)

    async def cancel(self, keys: Sequence[AttemptKey]) -> None:
        await self._warm.cancel(keys)
        await self._single.cancel(keys)

    async def quiesce(self, keys: Sequence[AttemptKey]) -> None:
        await self._single.quiesce([key for key in keys if not self._warm.knows(key)])

    async def adopt(self, keys: Sequence[AttemptKey]) -> None:
        await self._single.adopt([key for key in keys if not self._warm.knows(key)])

    async def kill(self, keys: Sequence[AttemptKey]) -> None:
        """A warm pod ends its task as soon as it is told."""
        warm = [key for key in keys if self._warm.knows(key)]
        await self._warm.cancel(warm)
        await self._single.kill([key for key in keys if key not in warm])

    def capacity(self) -> Capacity:
        known = self._single.capacity()
        running, queued = self._warm.counts()
        free = known.free
        for asked in self._warm.requested():
            free = Resources(
                max(0.0, free.cpu - asked.cpu),
                max(0, free.mem_bytes - asked.mem_bytes),
                max(0, free.gpu - asked.gpu),
                max(0, free.ephemeral_storage_bytes - asked.ephemeral_storage_bytes),
            )
        return replace(
            known, free=free, running=known.running + running, queued=known.queued + queued
        )

    async def read_log(
        self, key: AttemptKey, stream: str, *, offset: int, limit: int
    ) -> tuple[bytes, bool]:
        who = self._warm if self._warm.knows(key) else self._single
        return await who.read_log(key, stream, offset=offset, limit=limit)


async def _next(stream: AsyncIterator[Sequence[AttemptEvent]]) -> Sequence[AttemptEvent]:
    return await anext(stream)
