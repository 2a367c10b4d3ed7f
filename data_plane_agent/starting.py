"""Starts, when they may be: while the class of the run, the outbox and former attempts allow it.

Used by the engine for every attempt that a run decides on; what may not start now is held back and
looked at again; hands the rest to the launcher.
"""

from collections.abc import Sequence

from data_plane_agent.aside import Aside
from data_plane_agent.death import Death
from data_plane_agent.guard import Guard
from data_plane_agent.holdings import Holdings
from data_plane_agent.launcher import Attempt, Launcher
from data_plane_agent.outbox import Outbox
from data_plane_agent.run import Run


class Starting:
    def __init__(
        self,
        holdings: Holdings,
        *,
        launcher: Launcher,
        outbox: Outbox,
        guard: Guard,
        death: Death,
        aside: Aside,
    ) -> None:
        self._launcher = launcher
        self._holdings = holdings
        self._outbox = outbox
        self._guard = guard
        self._death = death
        self._aside = aside
        self._held_back: list[Attempt] = []

    async def start(self, attempts: Sequence[Attempt]) -> None:
        ours: list[Attempt] = []
        for one in attempts:
            run = self._holdings.owner(one.key)
            if run is None:
                continue
            if not self._outbox.healthy or not self._guard.starts(run.mode):
                self._held_back.append(one)
            elif run.undead_of(one.key.node):
                self._aside.do(self._after_death(run, one))
            else:
                run.trials[one.key.node].given = True
                ours.append(one)
        if ours:
            await self._launcher.start(ours)

    def soon(self, attempt: Attempt) -> None:
        self._aside.do(self.start([attempt]))

    async def again(self) -> None:
        if self._held_back and self._outbox.healthy:
            starts, self._held_back = self._held_back, []
            await self.start(starts)

    async def _after_death(self, run: Run, attempt: Attempt) -> None:
        former = run.undead_of(attempt.key.node)
        if await self._death.of(former, still=lambda: run.waits_for(attempt.key)):
            run.undead.difference_update(former)
            await self.start([attempt])
