"""How runs are let go of, and how exclusive work ends with its session.

Used by the engine: gives what was asked to leave its time, says the last word about a run once its
attempts are dead, stops exclusive attempts as soon as the session is in doubt.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from typing import Any

from whimbrel.spec import Failure, Mode, Owner

from data_plane_agent.aside import Aside
from data_plane_agent.death import Death
from data_plane_agent.fence import State
from data_plane_agent.guard import Guard
from data_plane_agent.holdings import Holdings
from data_plane_agent.launcher import AttemptEvent, AttemptKey, Broke
from data_plane_agent.run import Run
from data_plane_agent.work import Ending, Trial, Work

log = logging.getLogger(__name__)

QUIESCE_SECONDS = 30.0
"""Default of the setting, see there."""
LOOK_SECONDS = 0.25
"""Between two looks whether an older session's exclusive work must be over. Longer delays RELEASED,
shorter costs CPU."""
NO_RENEWAL = "the agent's session is in doubt: exclusive work stops until it is renewed"


class Leaving:
    def __init__(
        self,
        holdings: Holdings,
        *,
        guard: Guard,
        death: Death,
        aside: Aside,
        seconds: float,
        hear: Callable[[AttemptEvent, Work], None],
        do: Callable[[Work], Coroutine[Any, Any, None]],
    ) -> None:
        """`hear` takes an end up, `do` does what that leads to."""
        self._holdings = holdings
        self._guard = guard
        self._death = death
        self._aside = aside
        self._seconds = seconds
        self._hear = hear
        self._do = do
        self._stopping: set[AttemptKey] = set()

    def watch(self) -> None:
        """Of this loop: from now on exclusive work ends with the session."""
        loop = asyncio.get_running_loop()

        def changed(old: State, new: State) -> None:
            if not new.commits and not loop.is_closed():
                loop.call_soon_threadsafe(self.stop_exclusive)

        self._guard.on_change(changed)

    def begin(self, run: Run) -> None:
        """It was asked to leave: it gets its time."""
        asyncio.get_running_loop().call_later(self._seconds, self._out_of_time, run)

    def _out_of_time(self, run: Run) -> None:
        if run.ended:
            return
        fields = {"execution": run.execution, "epoch": run.epoch}
        log.warning("stopped: it was asked to end, and runs on", extra=fields)
        work = Work()
        run.out_of_time(work)
        self._aside.do(self._do(work))

    def end(self, ending: Ending) -> None:
        self._aside.do(self._end(ending))

    async def _end(self, ending: Ending) -> None:
        run = ending.run

        def still() -> bool:
            return self._holdings.runs.get(run.execution) is run

        dead = await self._death.of(ending.keys, still=still)
        while dead and run.mode is Mode.EXCLUSIVE and not self._guard.alone:
            await asyncio.sleep(LOOK_SECONDS)
            dead = still()
        if dead:
            work = Work()
            run.say_last(ending.event, work)
            await self._do(work)

    def stop_exclusive(self) -> None:
        for run in tuple(self._holdings.runs.values()):
            if run.mode is Mode.EXCLUSIVE:
                for trial in tuple(run.trials.values()):
                    if trial.given and trial.key not in self._stopping:
                        self._stopping.add(trial.key)
                        self._aside.do(self._stop(run, trial))

    async def _stop(self, run: Run, trial: Trial) -> None:
        try:
            dead = await self._death.of([trial.key], still=lambda: run.waits_for(trial.key))
        finally:
            self._stopping.discard(trial.key)
        if dead:
            failure = Failure(Owner.SYSTEM, "no_renewal", NO_RENEWAL, trial.key.node)
            work = Work()
            now = time.time_ns()
            self._hear(Broke(trial.key, failure, trial.started_ns or now, now), work)
            await self._do(work)
