"""The standing of this agent's session, shared by the event loop and the heartbeat thread.

Told by the session and the heartbeat what was heard; asked by the engine before each claim, start
and commit, and by launchers what exclusive work may run until; `fence.py` decides. Every question
looks at the clock first, so a pause of the whole process can't be overlooked.
"""

import threading
import time
from collections.abc import Callable

from whimbrel.spec import Mode

from data_plane_agent.fence import Heard, Standing, State, Tick, decide, may_start


def boottime_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


class Guard:
    def __init__(
        self,
        *,
        clock: Callable[[], int] = boottime_ns,
        autonomy_seconds: float = 0.0,
        longest_ns: int = 0,
        remember: Callable[[int], None] = lambda _longest_ns: None,
    ) -> None:
        """`autonomy_seconds`: how long idempotent work is started without a session, 0 = for
        ever. `longest_ns` is what an agent before this one was told to `remember`."""
        self._clock = clock
        self._autonomy_ns = int(autonomy_seconds * 1e9)
        self._lock = threading.Lock()
        self._standing = Standing(longest_ns=longest_ns)
        self._remember = remember
        self._listeners: list[Callable[[State, State], None]] = []

    def on_change(self, listener: Callable[[State, State], None]) -> None:
        """`listener(old, new)` is called on whichever thread found out."""
        self._listeners.append(listener)

    def now(self) -> int:
        return self._clock()

    @property
    def standing(self) -> Standing:
        return self.hear(Tick())

    @property
    def state(self) -> State:
        return self.hear(Tick()).state

    def starts(self, mode: Mode) -> bool:
        """May a task of a claimed run of this class be started now?"""
        standing = self.standing
        now = self._clock()
        return may_start(standing, mode, now_ns=now, autonomy_ns=self._autonomy_ns)

    @property
    def alone(self) -> bool:
        """No exclusive attempt of an earlier session of this cluster can run any more."""
        return self._clock() >= self.standing.alone_ns

    def until_ns(self) -> int:
        """`launcher.Renewal`."""
        standing = self.standing
        return standing.deadline_ns if standing.state.commits else 0

    def hear(self, heard: Heard) -> Standing:
        with self._lock:
            old = self._standing
            new = decide(old, heard, now_ns=self._clock())
            if new.longest_ns != old.longest_ns:
                self._remember(new.longest_ns)
            self._standing = new
        if new.state is not old.state:
            for listener in self._listeners:
                listener(old.state, new.state)
        return new

    def closed(self, *, spool: bool) -> str:
        """Why no new work is taken, "" = it is. `spool`: what happens can be written down."""
        if not spool:
            return "its agent's disk can't be written"
        return "its agent is stopping" if self.standing.draining else ""
