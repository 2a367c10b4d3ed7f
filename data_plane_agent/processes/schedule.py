"""Which waiting attempt goes to which worker next: slots and requests first, lanes in turn, then
tasks ahead.

Owned by `launcher.py`; asks `pool.py` for imports and forks, hands frames to `workers.py`.
"""

from collections import deque
from typing import Protocol

from whimbrel.runtime_frames import Message
from whimbrel.runtime_store import plain
from whimbrel.spec import Resources

from data_plane_agent.attempt_answers import parts_of
from data_plane_agent.launcher import Attempt, Capacity
from data_plane_agent.processes.workers import AHEAD, FamilyProcess, Lane, Record, WorkerProcess


class Processes(Protocol):
    def need(self, family: FamilyProcess, module: str) -> None: ...
    def fork(self, family: FamilyProcess) -> WorkerProcess: ...


class Schedule:
    """`busy` workers hold a slot and the requests of their lane until nothing is assigned to
    them."""

    def __init__(self, processes: Processes, *, slots: int, allocatable: Resources) -> None:
        self.busy: dict[str, WorkerProcess] = {}
        self.allocatable = allocatable
        self._processes = processes
        self._slots = slots
        self._waiting: deque[Lane] = deque()
        self._cpu_used, self._mem_used = 0.0, 0

    def lane(self, family: FamilyProcess, requests: Resources) -> Lane:
        """Who asks for more than there is gets all there is: placement has said that it fits."""
        return family.lane(
            min(requests.cpu, self.allocatable.cpu),
            min(requests.mem_bytes, self.allocatable.mem_bytes),
        )

    def add(self, record: Record) -> None:
        """Into its row, or, until its module is imported, into the family's."""
        family = record.lane.family
        if record.module in family.ready and (family.transport or family.idle):
            self._enqueue(record)
        else:
            family.pending.setdefault(record.module, deque()).append(record)

    def imported(self, family: FamilyProcess, module: str) -> None:
        for record in family.pending.pop(module, ()):
            self._enqueue(record)

    def again(self, record: Record) -> None:
        """It was handed out and never begun: to the head of the row."""
        record.worker, record.announced = None, False
        self._enqueue(record, first=True)

    def remove(self, record: Record) -> None:
        family = record.lane.family
        for queue in (record.lane.queue, family.pending.get(record.module)):
            if queue and record in queue:
                queue.remove(record)

    def pump(self, families: list[FamilyProcess]) -> None:
        for family in families:
            for module in family.pending:
                self._processes.need(family, module)
        gifts: dict[WorkerProcess, list[Message]] = {}
        self._fill_slots(gifts)
        self._hand_out_ahead(gifts)
        for worker, messages in gifts.items():
            worker.send(messages)

    def occupy(self, worker: WorkerProcess, lane: Lane) -> None:
        worker.lane = lane
        self.busy[worker.name] = worker
        self._cpu_used += lane.cpu
        self._mem_used += lane.mem

    def release(self, worker: WorkerProcess, *, at: float) -> None:
        """Its slot is free once it holds nothing and has met all that was taken back."""
        lane = worker.lane
        if lane is None or worker.assigned or (worker.revoked_last and not worker.dying):
            return
        worker.lane = None
        del self.busy[worker.name]
        self._cpu_used -= lane.cpu
        self._mem_used -= lane.mem
        worker.family.used_at = at
        if not worker.dying and worker.transport is not None:
            worker.family.idle.append(worker)

    def capacity(self, *, known: int) -> Capacity:
        running = len(self.busy)
        slots = self._slots - running
        free = Resources(
            cpu=max(0.0, min(self.allocatable.cpu - self._cpu_used, slots)),
            mem_bytes=max(0, self.allocatable.mem_bytes - self._mem_used),
        )
        return Capacity(self.allocatable, free, running, max(0, known - running))

    def _enqueue(self, record: Record, *, first: bool = False) -> None:
        lane = record.lane
        if lane not in self._waiting:
            self._waiting.append(lane)
        (lane.queue.appendleft if first else lane.queue.append)(record)

    def _fill_slots(self, gifts: dict[WorkerProcess, list[Message]]) -> None:
        """One task for each free slot, the lanes in turn."""
        stuck = 0
        while stuck < len(self._waiting):
            lane = self._waiting.popleft()
            if not lane.queue:
                continue
            worker = self._free_worker(lane)
            if worker is None:
                stuck += 1
            else:
                stuck = 0
                self._assign(worker, lane.queue.popleft(), gifts)
            if lane.queue:
                self._waiting.append(lane)

    def _hand_out_ahead(self, gifts: dict[WorkerProcess, list[Message]]) -> None:
        """Short tasks of the only lane that waits; with several, a worker must run dry for the next
        one's turn."""
        if len(self._waiting) != 1 or not self._waiting[0].fast:
            return
        lane = self._waiting[0]
        for worker in self.busy.values():
            if worker.lane is not lane or worker.dying or worker.revoked_last:
                continue
            if len(worker.assigned) <= AHEAD // 2:
                while lane.queue and len(worker.assigned) < AHEAD:
                    self._assign(worker, lane.queue.popleft(), gifts)
        if not lane.queue:
            self._waiting.clear()

    def _free_worker(self, lane: Lane) -> WorkerProcess | None:
        if len(self.busy) >= self._slots or not self._fits(lane):
            return None
        family = lane.family
        if family.idle:
            return family.idle.pop()
        if family.transport is None:
            self._processes.need(family, lane.queue[0].module)
            return None
        return self._processes.fork(family)

    def _fits(self, lane: Lane) -> bool:
        if not self.busy:
            return True
        cpu_fits = self._cpu_used + lane.cpu <= self.allocatable.cpu + 1e-9
        return cpu_fits and self._mem_used + lane.mem <= self.allocatable.mem_bytes

    def _assign(
        self, worker: WorkerProcess, record: Record, gifts: dict[WorkerProcess, list[Message]]
    ) -> None:
        if worker.lane is None:
            self.occupy(worker, record.lane)
        worker.last_seq += 1
        record.worker, record.seq = worker, worker.last_seq
        worker.assigned[record.seq] = record
        if worker.transport is not None and record.frame is not None:
            record.frame["seq"] = record.seq
            gifts.setdefault(worker, []).append(record.frame)


def module_of(entry_point: str) -> str:
    return entry_point.partition(":")[0]


def record_of(attempt: Attempt, lane: Lane) -> Record:
    """The attempt as its worker will hear it, and what is remembered of it here."""
    frame: Message = {
        "entry": attempt.task.entry_point,
        "in": attempt.inputs,
        "trace": attempt.traceparent,
        "checkpoint": attempt.checkpoint and plain(attempt.checkpoint),
        "meta": {
            "k": parts_of(attempt.key),
            "d": attempt.input_digest,
            "cpu": lane.cpu,
            "mem": lane.mem,
            "limit": attempt.limits.mem_bytes,
            "timeout": attempt.timeout_seconds,
            "exclusive": attempt.exclusive,
        },
    }
    return Record(
        attempt.key,
        attempt.input_digest,
        lane,
        attempt.timeout_seconds,
        attempt.limits.mem_bytes,
        frame,
        module_of(attempt.task.entry_point),
        exclusive=attempt.exclusive,
        renewable=attempt.exclusive,
        spooled=attempt.exclusive,
    )
