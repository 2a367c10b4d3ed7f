"""What may share a warm pod, and which waiting attempt goes to which pod next. Pure.

Owned by `pools.py`, which talks to the pods and hears the time. A pod takes one task after another;
those that are short are handed out ahead.
"""

import json
import math
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from whimbrel.runtime_frames import NEVER, Message
from whimbrel.spec import Resources, sha256

from data_plane_agent.launcher import Attempt, AttemptKey
from data_plane_agent.warm.door import Line

FAST_SECONDS = 0.005
"""Tasks of a lane that are shorter on average are handed out ahead. Longer ones gain nothing."""
AHEAD = 8
"""Tasks in a pod's hands at most. Fewer leave it waiting for messages, more only wait elsewhere."""
QUEUE_SECONDS = 1.0
"""Short tasks that one pod works off in this time are worth no second pod: less starts pods that
have nothing to do when they are ready, more makes a burst wait."""


@dataclass(frozen=True, slots=True)
class PoolKey:
    """Attempts that agree in all of it may run in one pod, one after another."""

    bundle: str
    project: str
    domain: str
    environment: tuple[tuple[str, str], ...]
    image: str
    secrets: tuple[str, ...]
    requests: Resources
    limits: Resources

    @classmethod
    def of(cls, attempt: Attempt) -> "PoolKey":
        task = attempt.task
        return cls(
            task.bundle,
            attempt.project,
            attempt.domain,
            tuple(sorted(task.environment.items())),
            task.container_image,
            tuple(sorted(task.secrets)),
            attempt.requests,
            attempt.limits,
        )

    @classmethod
    def parse(cls, text: str) -> "PoolKey":
        """ValueError when it is not what `text` gave."""
        try:
            fields: dict[str, Any] = json.loads(text)
            return cls(
                fields["bundle"],
                fields["project"],
                fields["domain"],
                tuple((name, value) for name, value in fields["environment"]),
                fields["image"],
                tuple(fields["secrets"]),
                Resources(**fields["requests"]),
                Resources(**fields["limits"]),
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a pool: {error!r}") from error

    @property
    def text(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)

    @property
    def id(self) -> str:
        return sha256(self.text)[:16]

    def holds(self, key: AttemptKey) -> bool:
        """Whether an attempt is of this pool's project and domain."""
        return key.execution.startswith(f"{self.project}/{self.domain}/")


@dataclass(eq=False, slots=True)
class Record:
    """One attempt from `start` until its end was taken. `attempt` is None for one that an earlier
    agent handed out. Times are of the agent's monotonic clock."""

    key: AttemptKey
    input_digest: str
    pool: "Pool"
    attempt: Attempt | None = None
    folder: str = ""
    reads: dict[str, str] = field(default_factory=dict[str, str])
    """URLs of what it reads, old from `reads_until_ns` on."""
    reads_until_ns: int = NEVER
    pod: "WarmPod | None" = None
    seq: int = 0
    began: float = 0.0
    began_ns: int = 0
    announced: bool = False
    saved_ns: int = 0
    ended: bool = False
    cancelled: bool = False

    @property
    def entry(self) -> str:
        return "" if self.attempt is None else self.attempt.task.entry_point


@dataclass(eq=False, slots=True)
class Lane:
    """Attempts of one task wait in one row."""

    queue: deque[Record] = field(default_factory=deque[Record])
    seconds: float = 1.0

    @property
    def fast(self) -> bool:
        return self.seconds < FAST_SECONDS

    def learn(self, seconds: float) -> None:
        self.seconds += 0.5 * (seconds - self.seconds)


@dataclass(eq=False, slots=True)
class WarmPod:
    """`assigned` by number, in order; the first is what runs. `since` is when its line was lost, or
    when it was made."""

    name: str
    pool: "Pool"
    token: str
    since: float
    uid: str = ""
    host: str = ""
    line: Line | None = None
    ready: bool = False
    leaving: bool = False
    assigned: dict[int, Record] = field(default_factory=dict[int, Record])
    asked_back: int = 0
    """Number of the newest that was asked back."""
    last_seq: int = 0
    owed: dict[int, Record] = field(default_factory=dict[int, Record])
    """Ended, but nobody has taken the end yet: the pod keeps these answers."""
    acks: list[int] = field(default_factory=list[int])
    idle_since: float = 0.0

    @property
    def open(self) -> bool:
        return self.ready and not self.leaving and self.line is not None

    @property
    def head(self) -> Record | None:
        """What runs."""
        return next((record for record in self.assigned.values() if record.began), None)


Gift = tuple[WarmPod, Record]


@dataclass(eq=False, slots=True)
class Pool:
    """`strikes` counts pods that ended before they were ready; `cold_until` it makes none."""

    key: PoolKey
    lanes: dict[str, Lane] = field(default_factory=dict[str, Lane])
    pods: dict[str, WarmPod] = field(default_factory=dict[str, WarmPod])
    strikes: int = 0
    cold_until: float = 0.0
    _turn: deque[Lane] = field(default_factory=deque[Lane])

    def add(self, record: Record, *, first: bool = False) -> None:
        lane = self.lane(record.entry)
        if not lane.queue:
            self._turn.append(lane)
        (lane.queue.appendleft if first else lane.queue.append)(record)

    def remove(self, record: Record) -> None:
        queue = self.lane(record.entry).queue
        if record in queue:
            queue.remove(record)
        self._turn = deque(lane for lane in self._turn if lane.queue)

    def lane(self, entry: str) -> Lane:
        return self.lanes.setdefault(entry, Lane())

    @property
    def waiting(self) -> int:
        return sum(len(lane.queue) for lane in self._turn)

    def drain(self) -> list[Record]:
        """All that waits, out of its rows."""
        found = [record for lane in self._turn for record in lane.queue]
        for lane in self._turn:
            lane.queue.clear()
        self._turn.clear()
        return found

    def deal(self) -> list[Gift]:
        """One task for each pod that has none, the lanes in turn; then short ones ahead."""
        return [*self._one_each(), *self._ahead()]

    def lacking(self, most: int) -> int:
        """How many pods more are worth making."""
        if not self.waiting:
            return 0
        pods = [pod for pod in self.pods.values() if not pod.leaving]
        busy = sum(bool(pod.assigned) for pod in pods)
        load = sum(
            len(lane.queue) * (lane.seconds / QUEUE_SECONDS if lane.fast else 1.0)
            for lane in self._turn
        )
        return max(0, min(most, busy + math.ceil(load)) - len(pods))

    def superfluous(self, now: float, *, idle_seconds: float) -> list[WarmPod]:
        return [
            pod
            for pod in self.pods.values()
            if pod.open and not pod.assigned and now - pod.idle_since > idle_seconds
        ]

    def _one_each(self) -> Iterator[Gift]:
        for pod in self.pods.values():
            if pod.open and not pod.assigned and self._turn:
                yield self._give(pod, self._turn[0])

    def _ahead(self) -> Iterator[Gift]:
        for pod in self.pods.values():
            if not pod.open or pod.asked_back or len(pod.assigned) > AHEAD // 2:
                continue
            while len(pod.assigned) < AHEAD and (
                lane := next((one for one in self._turn if one.fast), None)
            ):
                if any(not self.lane(record.entry).fast for record in pod.assigned.values()):
                    break  # it would wait behind a long one
                yield self._give(pod, lane)

    def _give(self, pod: WarmPod, lane: Lane) -> Gift:
        self._turn.remove(lane)
        record = lane.queue.popleft()
        if lane.queue:
            self._turn.append(lane)
        pod.last_seq += 1
        record.pod, record.seq, record.began = pod, pod.last_seq, 0.0
        pod.assigned[record.seq] = record
        return pod, record


def frame_of(record: Record, attempt: Attempt) -> Message:
    """The attempt as its pod will hear it."""
    key, checkpoint = attempt.key, attempt.checkpoint
    return {
        "t": "task",
        "seq": record.seq,
        "entry": attempt.task.entry_point,
        "in": attempt.inputs,
        "trace": attempt.traceparent,
        "checkpoint": None if checkpoint is None else asdict(checkpoint),
        "reads": record.reads,
        "reads_until_ns": record.reads_until_ns,
        "meta": {
            "k": [key.execution, key.node, key.attempt, key.epoch],
            "d": attempt.input_digest,
            "timeout": attempt.timeout_seconds,
            "f": record.folder,
        },
    }


def reads_files(value: Any) -> bool:
    """Whether there is an artifact in these inputs: most small tasks have none."""
    match value:
        case {"$artifact": _}:
            return True
        case Mapping():
            return any(map(reads_files, value.values()))  # pyright: ignore[reportUnknownArgumentType, reportUnknownMemberType] JSON
        case list():
            return any(map(reads_files, value))  # pyright: ignore[reportUnknownArgumentType] JSON
        case _:
            return False
