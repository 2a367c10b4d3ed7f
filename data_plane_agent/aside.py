"""Work beside the loops, which nobody waits for: its errors are told.

Used by the engine, for what must hold up neither an assignment nor a batch of events, and by the
launchers of pods, some of whose work must never end.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

log = logging.getLogger(__name__)


class Aside:
    def __init__(self, *, broken: Callable[[BaseException], None] = lambda _error: None) -> None:
        """`broken` is told what ended work that was to be kept going."""
        self._broken = broken
        self._tasks: set[asyncio.Task[None]] = set()
        self._kept: set[asyncio.Task[None]] = set()

    def do(self, work: Coroutine[Any, Any, None], name: str = "work aside") -> "asyncio.Task[None]":
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._over)
        return task

    def keep(self, work: Coroutine[Any, Any, None], name: str) -> None:
        self._kept.add(self.do(work, name))

    async def end(self) -> None:
        """Stops it all."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _over(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if task.cancelled() or (error := task.exception()) is None:
            return
        log.error("%s failed: a bug", task.get_name(), exc_info=error)
        if task in self._kept:
            self._broken(error)
