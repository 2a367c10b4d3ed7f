"""The one seam to compute: four verbs, whatever runs the task (processes or pods).

Called by the engine with what to start; answers with a stream of batches of what happened. A
launcher keeps attempts alive over the agent's own restart: the first batch of `watch()` is one
`Found` for what still runs from before.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from whimbrel.spec import Artifact, Failure, Outputs, Resources, TaskSpec


@dataclass(frozen=True, slots=True)
class AttemptKey:
    """Deterministic name of one try: starting it twice is harmless."""

    execution: str
    node: str
    attempt: int
    epoch: int


@dataclass(frozen=True, slots=True)
class Attempt:
    """Everything a task needs to run once. `inputs` are JSON forms by name."""

    key: AttemptKey
    task: TaskSpec
    inputs: Mapping[str, Any]
    input_digest: str
    project: str
    domain: str
    requests: Resources
    limits: Resources
    timeout_seconds: float
    traceparent: str = ""
    checkpoint: Artifact | None = None


@dataclass(frozen=True, slots=True)
class Logs:
    """What the attempt wrote; None when it wrote nothing."""

    stdout: Artifact | None = None
    stderr: Artifact | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """First of all: attempts from before the agent's restart, and the input digests they run on."""

    running: Mapping[AttemptKey, str]


@dataclass(frozen=True, slots=True)
class Started:
    key: AttemptKey
    at_ns: int


@dataclass(frozen=True, slots=True)
class Finished:
    key: AttemptKey
    outputs: Outputs
    input_digest: str
    started_ns: int
    ended_ns: int
    logs: Logs = Logs()


@dataclass(frozen=True, slots=True)
class Broke:
    """The attempt ended without a result. `failure.owner` decides whose budget pays.

    kinds: raised, oom, timeout, exited, import, unreadable_input, store_full, worker_lost."""

    key: AttemptKey
    failure: Failure
    started_ns: int
    ended_ns: int
    logs: Logs = Logs()
    unreadable: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Saved:
    """The task wrote a checkpoint object."""

    key: AttemptKey
    artifact: Artifact
    at_ns: int


AttemptEvent = Found | Started | Finished | Broke | Saved


@dataclass(frozen=True, slots=True)
class Capacity:
    allocatable: Resources
    free: Resources
    running: int
    queued: int


class Launcher(Protocol):
    async def start(self, attempts: Sequence[Attempt]) -> None:
        """Queue attempts; returns once they are accepted. A known key is ignored."""
        ...

    def watch(self) -> AsyncIterator[Sequence[AttemptEvent]]:
        """Batches of what happened, in order. One consumer."""
        ...

    async def cancel(self, keys: Sequence[AttemptKey]) -> None:
        """Stop these, running or queued, and forget them: no event follows."""
        ...

    def capacity(self) -> Capacity: ...
