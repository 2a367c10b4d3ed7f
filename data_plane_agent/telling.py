"""Tells of attempts that run longer than a moment: fast ones are told of by their end alone.

Run by the engine, which adds what has started; asks each attempt's run for the words.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable

from data_plane_agent.holdings import Holdings
from data_plane_agent.launcher import AttemptKey
from data_plane_agent.work import Work

TELL_RUNNING_SECONDS = 0.05
"""An attempt is reported RUNNING when it is older. Shorter doubles the events of fast tasks;
longer hides slow ones."""


class Telling:
    def __init__(self, holdings: Holdings, *, do: Callable[[Work], Awaitable[None]]) -> None:
        self._holdings = holdings
        self._do = do
        self._young: deque[tuple[float, AttemptKey]] = deque()
        self._some = asyncio.Event()

    def add(self, started: Iterable[AttemptKey]) -> None:
        now = asyncio.get_running_loop().time()
        self._young.extend((now, key) for key in started)
        if self._young:
            self._some.set()

    async def run(self) -> None:
        while True:
            await self._some.wait()
            await asyncio.sleep(TELL_RUNNING_SECONDS)
            old = asyncio.get_running_loop().time() - TELL_RUNNING_SECONDS
            work = Work()
            while self._young and self._young[0][0] <= old:
                _, key = self._young.popleft()
                if (run := self._holdings.owner(key)) is not None:
                    run.running(key, work)
            if not self._young:
                self._some.clear()
            await self._do(work)
