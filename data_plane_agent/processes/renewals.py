"""Which exclusive attempts may run on and until when, written where their workers look
(`StatePage.grant`).

Asked by `launcher.py` at every tick; knows the session through `Renewal` only. The worker's own
timer does the rest: whoever is not renewed ends without us.
"""

from collections.abc import Iterable

from whimbrel.runtime_timer import boottime_ns

from data_plane_agent.launcher import Renewal
from data_plane_agent.processes.workers import Record, WorkerProcess


class Renewals:
    """Without a `Renewal` nothing exclusive starts here."""

    def __init__(self, renewal: Renewal | None) -> None:
        self._renewal = renewal
        self._live = False

    def write(self, busy: Iterable[WorkerProcess], known: Iterable[Record]) -> None:
        """A session that was live and is not any more takes its attempts with it: the next one
        renews only what it has claimed, see `Launcher.adopt`."""
        until = self._renewal.until_ns() if self._renewal else 0
        live = until > boottime_ns()
        if self._live and not live:
            for record in known:
                record.renewable = False
        self._live = live
        if not live:
            return
        for worker in busy:
            for record in worker.assigned.values():
                if record.exclusive and record.renewable and worker.page is not None:
                    worker.page.grant(record.seq, until)
