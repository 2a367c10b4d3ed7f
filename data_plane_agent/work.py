"""What a run's events lead to, and the attempts they are about: plain values.

Filled by `run.py` and `holdings.py`; the engine does what stands in a `Work`: to the launcher, to
the outbox.
"""

from dataclasses import dataclass, field

from data_plane_agent.launcher import Attempt, AttemptKey, Logs
from data_plane_agent.outbox import Entry


@dataclass(slots=True)
class Work:
    """What one batch of events leads to: done at once, together. `ended` are attempts whose end was
    heard, and may be forgotten by who told it once `entries` are on disk."""

    starts: list[Attempt] = field(default_factory=list[Attempt])
    later: list[tuple[float, Attempt]] = field(default_factory=list[tuple[float, Attempt]])
    cancels: list[AttemptKey] = field(default_factory=list[AttemptKey])
    entries: list[Entry] = field(default_factory=list[Entry])
    started: list[AttemptKey] = field(default_factory=list[AttemptKey])
    logs: list[tuple[AttemptKey, Logs]] = field(default_factory=list[tuple[AttemptKey, Logs]])
    ended: list[AttemptKey] = field(default_factory=list[AttemptKey])
    decisions: int = 0


@dataclass(slots=True)
class Trial:
    """An attempt in flight. `trace` is the node's span, `task_trace` the task's below it. `no_room`
    is what the cluster says when it has had none for it for too long."""

    key: AttemptKey
    input_digest: str
    trace: str
    task_trace: str
    begun_ns: int
    started_ns: int = 0
    told: bool = False
    host: str = ""
    avoided: tuple[str, ...] = ()
    no_room: str = ""
