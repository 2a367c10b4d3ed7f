"""What became of attempts, until somebody has it on disk: events in order, ends that were told and
not yet taken.

Part of `launcher.py`; a worker that dies in a task is buried here: why it ended, its logs. What is
not taken stays with its worker or in the spool, and is told again by the next agent.
"""

import asyncio
import signal
import time
from collections.abc import Sequence
from pathlib import Path

from whimbrel.runtime_frames import Now
from whimbrel.runtime_timer import boottime_ns
from whimbrel.runtime_worker import spool_file
from whimbrel.spec import Failure, Owner

from data_plane_agent.attempt_answers import parts_of
from data_plane_agent.blobs import Blobs
from data_plane_agent.launcher import AttemptEvent, AttemptKey, Broke, Finished
from data_plane_agent.news import News
from data_plane_agent.processes.gone import gone
from data_plane_agent.processes.limits import oom_kills, why_it_ended
from data_plane_agent.processes.logs import save_logs
from data_plane_agent.processes.workers import Record, WorkerProcess


class Ends:
    def __init__(self, blobs: Blobs, records: dict[AttemptKey, Record], *, data_dir: Path) -> None:
        """Whatever ends leaves `records`."""
        self._blobs, self._data_dir = blobs, data_dir
        self._records = records
        self._news = News[Record](lambda record: records.get(record.key) is record)
        self._told: dict[AttemptKey, Record] = {}
        self._burials: set[asyncio.Task[None]] = set()
        self._ooms = oom_kills()

    def tell(self, event: AttemptEvent, record: Record) -> None:
        if isinstance(event, Finished | Broke) and record.worker is not None:
            record.worker.untaken.add(record.seq)
        self._news.tell(event, record)

    def broke(self, record: Record, failure: Failure) -> None:
        """Before it began."""
        now = time.time_ns()
        self.tell(Broke(record.key, at(failure, record), now, now), record)

    async def batch(self) -> Sequence[AttemptEvent]:
        told = await self._news.batch()
        for event, record in told:
            if isinstance(event, Finished | Broke):
                self._told[record.key] = self._records.pop(record.key)
        return [event for event, _ in told]

    def taken(self, keys: Sequence[AttemptKey]) -> None:
        for key in keys:
            if record := self._told.pop(key, None):
                self.settle(record)

    def settle(self, record: Record) -> None:
        """Nobody needs its answer any more. Workers forget up to a number: an older one that is
        not taken yet holds it back."""
        if worker := record.worker:
            worker.untaken.discard(record.seq)
            worker.settled = max(worker.settled, record.seq)
            oldest = min(worker.untaken, default=worker.settled + 1)
            worker.ack_due = max(worker.ack_due, oldest - 1)
        if record.spooled:
            self.forget(record.key)

    def forget(self, key: AttemptKey) -> None:
        spool_file(self._data_dir, parts_of(key)).unlink(missing_ok=True)

    def bury(self, worker: WorkerProcess, record: Record, now: Now) -> None:
        record.worker = None
        task = asyncio.get_running_loop().create_task(self._bury(worker, record, now))
        self._burials.add(task)
        task.add_done_callback(self._burials.discard)

    async def close(self) -> None:
        await asyncio.gather(*self._burials, return_exceptions=True)

    async def _bury(self, worker: WorkerProcess, record: Record, now: Now) -> None:
        """Tell of a broken attempt once its logs are safe."""
        ooms = oom_kills()
        failure = worker.doom or why_it_ended(worker.exit_status, oom=ooms > self._ooms)
        self._ooms = ooms
        if worker.doom is None and _lapsed(worker, record):
            failure = Failure(
                Owner.SYSTEM,
                "no_renewal",
                "ended by its own timer: its cluster's session was not renewed in time",
            )
        if worker.exclusive:  # its family may be dead, too, and have ended nothing
            await gone([worker])
        logs = await save_logs(self._blobs, worker, record.key, now)
        worker.forget_files()
        self.tell(
            Broke(record.key, at(failure, record), now.started_ns, time.time_ns(), logs), record
        )


def at(failure: Failure, record: Record) -> Failure:
    return Failure(failure.owner, failure.kind, failure.message, record.key.node, failure.traceback)


def _lapsed(worker: WorkerProcess, record: Record) -> bool:
    if worker.page is None or worker.exit_status not in (None, -signal.SIGKILL):
        return False
    return record.exclusive and 0 < worker.page.granted(record.seq) <= boottime_ns()
