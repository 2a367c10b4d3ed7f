"""The process launcher: attempts in, events out, with this machine's processes in between.

Called by the engine through `data_plane_agent/launcher.py`; hands attempts to warm workers
(`workers.py`) that `pool.py` keeps. A task costs a message; a crash costs a worker; limits are kept
here, by killing.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress

from whimbrel.runtime_frames import NEVER, Message, Now
from whimbrel.runtime_store import artifact_of
from whimbrel.spec import Failure, Resources

from data_plane_agent.attempt_answers import end_of, key_of
from data_plane_agent.blobs import Blobs
from data_plane_agent.launcher import (
    Attempt,
    AttemptEvent,
    AttemptKey,
    Capacity,
    Found,
    Renewal,
    Saved,
    Started,
)
from data_plane_agent.processes.adoption import running_attempts, spooled_result, spooled_results
from data_plane_agent.processes.ends import Ends
from data_plane_agent.processes.gone import gone
from data_plane_agent.processes.limits import over_limit, timed_out, total_memory, used_memory
from data_plane_agent.processes.logs import written
from data_plane_agent.processes.pool import FetchBundle, Pool
from data_plane_agent.processes.renewals import Renewals
from data_plane_agent.processes.schedule import Schedule, module_of, record_of
from data_plane_agent.processes.settings import ProcessSettings
from data_plane_agent.processes.workers import FamilyKey, FamilyProcess, Lane, Record, WorkerProcess

log = logging.getLogger(__name__)

TICK_SECONDS = 0.02
"""How often busy workers are looked at: limits, and taking back what waits behind a long task."""
_MEMORY_TICKS = 10
_IDLE_TICK_SECONDS = 0.5


class ProcessLauncher:
    """Implements `Launcher`. `open` before anything else; `close(kill=False)` leaves the work to
    the next agent. Without a `renewal` nothing exclusive starts."""

    def __init__(
        self,
        settings: ProcessSettings,
        *,
        fetch_bundle: FetchBundle,
        renewal: Renewal | None = None,
    ) -> None:
        self.settings = settings
        self.blobs = Blobs(settings.store, region=settings.region)
        self.pool = Pool(settings, self, fetch_bundle=fetch_bundle, store=self.blobs.root)
        allocatable = Resources(
            cpu=settings.cpu or float(settings.slots),
            mem_bytes=settings.mem_bytes or total_memory(),
        )
        self._schedule = Schedule(self.pool, slots=settings.slots, allocatable=allocatable)
        self._records: dict[AttemptKey, Record] = {}
        self._leaving: dict[AttemptKey, WorkerProcess] = {}  # stopped, and perhaps not gone yet
        self._ends = Ends(self.blobs, self._records, data_dir=self.pool.data_dir)
        self._renewals = Renewals(renewal)
        self._found: dict[AttemptKey, str] = {}
        self._pump_due = False
        self._ticker: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()

    # -- life -------------------------------------------------------------------------------------

    async def open(self) -> None:
        await self.pool.open()
        self._take_over()
        self._ticker = asyncio.create_task(self._tick_forever(), name="process launcher ticks")

    async def close(self, *, kill: bool) -> None:
        if self._ticker is not None:
            self._ticker.cancel()
            await asyncio.gather(self._ticker, return_exceptions=True)
        await self.pool.close(kill=kill)
        await self._ends.close()

    # -- the seam ---------------------------------------------------------------------------------

    async def start(self, attempts: Sequence[Attempt]) -> None:
        for attempt in attempts:
            if attempt.key not in self._records:
                self._queue(attempt)
        self._wake.set()
        self._pump_soon()

    async def watch(self) -> AsyncIterator[Sequence[AttemptEvent]]:
        """`Found` also names attempts that have ended meanwhile: their end follows in the next
        batch."""
        yield [Found(self._found)]
        while True:
            yield await self._ends.batch()

    def taken(self, keys: Sequence[AttemptKey]) -> None:
        self._ends.taken(keys)

    async def quiesce(self, keys: Sequence[AttemptKey]) -> None:
        for key in keys:
            if record := self._records.get(key):
                record.quiesced = True

    async def adopt(self, keys: Sequence[AttemptKey]) -> None:
        for key in keys:
            if record := self._records.get(key):
                record.renewable = True

    async def kill(self, keys: Sequence[AttemptKey]) -> None:
        await self.cancel(keys)
        leaving = [worker for key in keys if (worker := self._leaving.get(key))]
        await gone(leaving)

    async def cancel(self, keys: Sequence[AttemptKey]) -> None:
        self.taken(keys)
        for key in keys:
            record = self._records.pop(key, None)
            if record is None:
                continue
            self._ends.settle(record)
            worker = record.worker
            if worker is None:
                self._schedule.remove(record)
            else:
                self._withdraw(worker, record)
        self._pump_soon()

    def capacity(self) -> Capacity:
        return self._schedule.capacity(known=len(self._records))

    async def read_log(
        self, key: AttemptKey, stream: str, *, offset: int, limit: int
    ) -> tuple[bytes, bool]:
        """Bytes of a running attempt's stdout or stderr, and whether no more can come from here."""
        record = self._records.get(key)
        if record is None:
            return b"", True
        worker = record.worker
        now = worker.now() if worker else None
        if worker is None or now is None or now.seq != record.seq or not now.running:
            return b"", False
        return written(worker, now, stream, offset=offset, limit=limit), False

    # -- queueing ---------------------------------------------------------------------------------

    def _queue(self, attempt: Attempt) -> None:
        task = attempt.task
        family = self.pool.family(
            FamilyKey(
                task.bundle,
                attempt.project,
                attempt.domain,
                tuple(sorted(task.environment.items())),
                attempt.exclusive,
                module_of(task.entry_point) if attempt.exclusive else "",
            )
        )
        lane = self._schedule.lane(family, attempt.requests)
        record = record_of(attempt, lane)
        self._records[attempt.key] = record
        self._schedule.add(record)

    def _pump_soon(self) -> None:
        if not self._pump_due:
            self._pump_due = True
            asyncio.get_running_loop().call_soon(self._pump)

    def _pump(self) -> None:
        self._pump_due = False
        self._schedule.pump(list(self.pool.families.values()))

    # -- what families and workers say (Ears) -----------------------------------------------------

    def imported(self, family: FamilyProcess, module: str) -> None:
        self._schedule.imported(family, module)

    def broken(self, family: FamilyProcess, modules: list[str], failure: Failure) -> None:
        for module in modules:
            for record in family.pending.pop(module, ()):
                self._ends.broke(record, failure)

    def hello(self, worker: WorkerProcess, message: Message) -> None:
        for result in message["results"]:
            record = self._records.get(key_of(result["k"]))
            if record is not None and record.worker is worker:
                self._ended(worker, record, result)
            else:
                worker.ack_due = max(worker.ack_due, result["seq"])
                self._ends.forget(key_of(result["k"]))
        if worker.page is not None:
            worker.page.revoked_from = NEVER
        frames: list[Message] = []
        for record in worker.assigned.values():
            if record.frame is not None and record.seq > worker.now().seq:
                record.frame["seq"] = record.seq
                frames.append(record.frame)
        worker.send(frames)
        self._release(worker)
        if worker.lane is None and worker not in worker.family.idle:
            worker.family.idle.append(worker)

    def heard(self, worker: WorkerProcess, message: Message) -> None:
        match message:
            case {"t": "done" | "broke", "seq": int(seq)}:
                record = worker.assigned.get(seq)
                if record is None:  # cancelled meanwhile
                    self._release(worker)
                else:
                    record.lane.learn((message["e"] - message["s"]) / 1e9)
                    self._ended(worker, record, message)
            case {"t": "dropped", "seq": int(seq)}:
                record = worker.dropped(seq)
                if record is not None:
                    self._schedule.again(record)
                self._release(worker)
            case {"t": "saved", "k": parts, "artifact": fields, "at": int(at)}:
                record = self._records.get(key_of(parts))
                if record is not None and record.worker is worker:
                    self._ends.tell(Saved(record.key, artifact_of(fields), at), record)
            case {"t": "retire"}:
                worker.dying = True
            case _:
                log.warning("worker %s said what nobody understands: %s", worker.name, message)

    def dead(self, worker: WorkerProcess) -> None:
        """Its process is gone: what it ran is broken, what it had not begun goes back to the
        row."""
        now = worker.now()
        running = worker.assigned.get(now.seq)
        spooled = running and spooled_result(self.pool.data_dir, running.key)
        head: Record | None = None
        for record in reversed(list(worker.assigned.values())):
            theirs = record.seq == now.seq and (now.running or spooled)
            if theirs and (worker.doom is None or worker.doom_seq == now.seq):
                head = record
            elif record.frame is not None:
                self._schedule.again(record)
        worker.assigned.clear()
        worker.dying = True
        self._release(worker)
        for key in [key for key, leaving in self._leaving.items() if leaving is worker]:
            del self._leaving[key]
            self._ends.forget(key)  # it may have answered before it was stopped
        if head is None:
            worker.forget_files()
        elif spooled is not None:
            head.spooled = True
            self._ends.tell(end_of(spooled), head)
            worker.forget_files()
        else:
            self._ends.bury(worker, head, now)

    def settled(self) -> None:
        self._pump_soon()

    # -- ends -------------------------------------------------------------------------------------

    def _ended(self, worker: WorkerProcess, record: Record, message: Message) -> None:
        worker.assigned.pop(record.seq, None)
        self._ends.tell(end_of(message), record)
        self._release(worker)

    def _release(self, worker: WorkerProcess) -> None:
        self._schedule.release(worker, at=asyncio.get_running_loop().time())

    def _withdraw(self, worker: WorkerProcess, record: Record) -> None:
        """Off its worker: unseen if it has not begun, otherwise by killing the worker."""
        for taken in reversed(worker.take_back()):
            if taken is not record:
                self._schedule.again(taken)
        if worker.assigned.pop(record.seq, None) is None:
            return
        now = worker.now()
        if now.seq == record.seq and now.running:
            self._leaving[record.key] = worker
            worker.kill()

    # -- limits -----------------------------------------------------------------------------------

    async def _tick_forever(self) -> None:
        count = 0
        while True:
            busy = bool(self._schedule.busy) or any(
                w.dying or w.lost_at for w in self.pool.workers.values()
            )
            starting = any(f.starting for f in self.pool.families.values())
            if busy or starting:
                await asyncio.sleep(TICK_SECONDS)
            else:
                self._wake.clear()
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), _IDLE_TICK_SECONDS)
            count += 1
            self._look(memory=count % _MEMORY_TICKS == 0)

    def _look(self, *, memory: bool) -> None:
        now_ns = time.time_ns()
        self._renewals.write(self._schedule.busy.values(), self._records.values())
        for worker in list(self._schedule.busy.values()):
            now = worker.now()
            record = worker.assigned.get(now.seq)
            if record is None or not now.running or worker.dying:
                continue
            if record.quiesced and worker.page is not None:
                worker.page.quiesce(record.seq)
            age = (now_ns - now.started_ns) / 1e9
            if age > TICK_SECONDS and not record.announced:
                record.announced = True
                self._ends.tell(Started(record.key, now.started_ns), record)
            if age > TICK_SECONDS and len(worker.assigned) > 1:
                record.lane.learn(max(age, record.lane.seconds))
                for taken in reversed(worker.take_back()):
                    self._schedule.again(taken)
            if record.timeout_seconds and age > record.timeout_seconds:
                self._doom(worker, now, timed_out(record.timeout_seconds))
            elif memory and record.mem_limit:
                used = used_memory(worker.pid)
                if used > record.mem_limit:
                    self._doom(worker, now, over_limit(used, record.mem_limit))
        for worker in self.pool.workers.values():
            if worker.ack_due > worker.acked and worker.lane is None:
                worker.send([])
        self.pool.tick()
        self._end_idle_families()
        self._pump_soon()

    def _doom(self, worker: WorkerProcess, now: Now, failure: Failure) -> None:
        if worker.now().seq == now.seq:
            worker.doom, worker.doom_seq = failure, now.seq
            worker.kill()

    def _end_idle_families(self) -> None:
        now = asyncio.get_running_loop().time()
        for family in list(self.pool.families.values()):
            in_use = family.starting or family.pending or len(family.idle) < len(family.workers)
            if in_use or any(lane.queue for lane in family.lanes.values()):
                family.used_at = now
            elif now - family.used_at > self.settings.idle_seconds:
                self.pool.end_family(family)

    # -- taking over from an earlier agent --------------------------------------------------------

    def _take_over(self) -> None:
        for worker, record in running_attempts(self.pool):
            self._records[record.key] = record
            self._found[record.key] = record.input_digest
            self._schedule.occupy(worker, record.lane)
        for message in spooled_results(self.pool.data_dir):
            key = key_of(message["k"])
            self._found[key] = message["d"]
            record = self._records.get(key)
            if record is not None and record.worker is not None:
                if not record.exclusive:  # that one is told when nothing of it is left, see `dead`
                    self._ended(record.worker, record, message)
            elif record is None:
                nowhere = Lane(FamilyProcess(""), 0.0, 0)
                record = Record(key, message["d"], nowhere, 0.0, 0, None, spooled=True)
                self._records[key] = record
                self._ends.tell(end_of(message), record)
