"""What a run's events lead to, and the attempts they are about: plain values.

Filled by `run.py` and `holdings.py`; the engine does what stands in a `Work`: to the launcher, to
the outbox.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from data_plane_agent.launcher import Attempt, AttemptKey, Logs
from data_plane_agent.outbox import Entry

if TYPE_CHECKING:
    from data_plane_agent.dag import Outputs
    from data_plane_agent.run import Run


@dataclass(slots=True)
class Work:
    """What one batch of events leads to: done at once, together. `ended` are attempts whose end was
    heard, and may be forgotten by who told it once `entries` are on disk; `results` of runs whose
    values go to the store before the run may end."""

    starts: list[Attempt] = field(default_factory=list[Attempt])
    later: list[tuple[float, Attempt]] = field(default_factory=list[tuple[float, Attempt]])
    cancels: list[AttemptKey] = field(default_factory=list[AttemptKey])
    entries: list[Entry] = field(default_factory=list[Entry])
    started: list[AttemptKey] = field(default_factory=list[AttemptKey])
    logs: list[tuple[AttemptKey, Logs]] = field(default_factory=list[tuple[AttemptKey, Logs]])
    ended: list[AttemptKey] = field(default_factory=list[AttemptKey])
    results: list[tuple["Run", "Outputs"]] = field(default_factory=list[tuple["Run", "Outputs"]])
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
