"""The queue between launch and dispatch: many launches become one batch.

Woken by launch, the ledger and the sweeper; drains into `dispatch.py`. It lives in memory only:
what a crash loses here the sweeper finds in the rows.
"""

import asyncio
import logging
from collections.abc import Iterable

from whimbrel.errors import Unreachable

from control_plane.executions.changes import Changes
from control_plane.executions.dispatch import BATCH, Dispatch

LOG = logging.getLogger(__name__)


class Dispatcher:
    def __init__(self, dispatch: Dispatch, changes: Changes) -> None:
        self._dispatch = dispatch
        self._changes = changes
        self._queue: dict[str, None] = {}
        self._news = asyncio.Event()

    def wake(self, executions: Iterable[str]) -> None:
        self._queue.update(dict.fromkeys(executions))
        if self._queue:
            self._news.set()

    async def run(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            while self._queue:
                await self.drain()

    async def drain(self) -> None:
        """One batch. A failure is left to the sweeper, which looks again in a second or two."""
        batch = list(self._queue)[:BATCH]
        for name in batch:
            del self._queue[name]
        try:
            await self._dispatch(batch)
        except Unreachable as error:
            LOG.warning("%d executions wait for the router: %s", len(batch), error.message)
        except Exception:
            LOG.exception("dispatch of %d executions failed", len(batch))
        self._changes.notify(batch)
