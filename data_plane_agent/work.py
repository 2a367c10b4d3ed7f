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
    from data_plane_agent.messages import Event
    from data_plane_agent.run import Run


@dataclass(slots=True)
class Work:
    """What one batch of events leads to: done at once, together. `ended` are attempts whose end was
    heard, and may be forgotten by who told it once `entries` are on disk; `results` of runs whose
    values go to the store before the run may end; `endings` are said once their attempts are dead;
    `leaving` are runs that have been asked to let go, `quiesces` what they still run."""

    starts: list[Attempt] = field(default_factory=list[Attempt])
    later: list[tuple[float, Attempt]] = field(default_factory=list[tuple[float, Attempt]])
    cancels: list[AttemptKey] = field(default_factory=list[AttemptKey])
    entries: list[Entry] = field(default_factory=list[Entry])
    started: list[AttemptKey] = field(default_factory=list[AttemptKey])
    logs: list[tuple[AttemptKey, Logs]] = field(default_factory=list[tuple[AttemptKey, Logs]])
    ended: list[AttemptKey] = field(default_factory=list[AttemptKey])
    results: list[tuple["Run", "Outputs"]] = field(default_factory=list[tuple["Run", "Outputs"]])
    adopts: list[AttemptKey] = field(default_factory=list[AttemptKey])
    quiesces: list[AttemptKey] = field(default_factory=list[AttemptKey])
    leaving: list["Run"] = field(default_factory=list["Run"])
    endings: list["Ending"] = field(default_factory=list["Ending"])
    decisions: int = 0


@dataclass(frozen=True, slots=True)
class Ending:
    """The last event of a run of which no code may run any more when it is said: none of `keys`."""

    run: "Run"
    event: "Event"
    keys: tuple[AttemptKey, ...]


@dataclass(slots=True)
class Trial:
    """An attempt in flight. `trace` is the node's span, `task_trace` the task's below it. `no_room`
    is what the cluster says when it has had none for it for too long. `given` to the launcher: else
    it waits for its time; `runs`: it was seen to, or was there before us."""

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
    given: bool = False
    runs: bool = False
