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
    avoid: tuple[str, ...] = ()
    """Hosts on which earlier attempts of this node broke for the platform's reasons: preferably not
    there."""
    exclusive: bool = False
    """Two attempts of its node must never run at once: it arms a kernel timer of its own before
    user code, from a renewal of the session that is live then, and only later live renewals push
    it out. No live renewal in time: no start (Broke, system, `no_renewal`)."""


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
    """`host` is the machine of the cluster it runs on, "" = this one. `avoided` are the hosts of
    `Attempt.avoid` that it was kept away from."""

    key: AttemptKey
    at_ns: int
    host: str = ""
    avoided: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Finished:
    key: AttemptKey
    outputs: Outputs
    input_digest: str
    started_ns: int
    ended_ns: int
    logs: Logs = Logs()
    host: str = ""


@dataclass(frozen=True, slots=True)
class Broke:
    """The attempt ended without a result. `failure.owner` decides whose budget pays.

    kinds (user): raised, exited, import, oom, disk, timeout, bad_answer; (system): worker_lost,
    node_lost, evicted, preempted, shutdown, pod_lost, not_started, image_pull, unreadable_input,
    store_full, interrupted, no_renewal; (config): image, pod_config, admission."""

    key: AttemptKey
    failure: Failure
    started_ns: int
    ended_ns: int
    logs: Logs = Logs()
    unreadable: tuple[str, ...] = ()
    host: str = ""


@dataclass(frozen=True, slots=True)
class Unplaceable:
    """The cluster has had no room for a queued attempt for too long; it stays queued until it is
    cancelled. `message` is for a person: what the scheduler says; "" = it has a place after all."""

    key: AttemptKey
    message: str


@dataclass(frozen=True, slots=True)
class Saved:
    """The task wrote a checkpoint object."""

    key: AttemptKey
    artifact: Artifact
    at_ns: int


AttemptEvent = Found | Started | Finished | Broke | Saved | Unplaceable


@dataclass(frozen=True, slots=True)
class Offer:
    """What the cluster can run at all. `images` are globs, empty = any."""

    images: tuple[str, ...] = ()
    refused_images: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Capacity:
    """`ill` is why the compute can't be asked at the moment, "" = it answers. `offer` None: it runs
    whatever it is given."""

    allocatable: Resources
    free: Resources
    running: int
    queued: int
    ill: str = ""
    offer: Offer | None = None


class Renewal(Protocol):
    """The session as exclusive work needs it; constructed launchers ask it at any time."""

    def until_ns(self) -> int:
        """CLOCK_BOOTTIME of this machine at which exclusive work must have stopped, as of the
        newest acknowledged heartbeat; 0 = nothing exclusive may run now."""
        ...


class Launcher(Protocol):
    async def start(self, attempts: Sequence[Attempt]) -> None:
        """Queue attempts; returns once they are accepted. A known key is ignored."""
        ...

    def watch(self) -> AsyncIterator[Sequence[AttemptEvent]]:
        """Batches of what happened, in order. One consumer."""
        ...

    def taken(self, keys: Sequence[AttemptKey]) -> None:
        """The ends of these are on disk: not to be told again after a restart."""
        ...

    async def quiesce(self, keys: Sequence[AttemptKey]) -> None:
        """Ask these to save a checkpoint and end soon (`Context.migration_requested`). Those that
        do break as `interrupted`, others go on; queued ones are left queued."""
        ...

    async def cancel(self, keys: Sequence[AttemptKey]) -> None:
        """Stop these, running or queued, and forget them: no event follows."""
        ...

    async def kill(self, keys: Sequence[AttemptKey]) -> None:
        """As `cancel`, and returns only when no code of them runs any more. Unreachable when that
        can't be known now; asking again is harmless."""
        ...

    async def adopt(self, keys: Sequence[AttemptKey]) -> None:
        """These, from before this agent, are ours again by a Claim of this session: exclusive ones
        may be renewed."""
        ...

    def capacity(self) -> Capacity: ...

    async def read_log(
        self, key: AttemptKey, stream: str, *, offset: int, limit: int
    ) -> tuple[bytes, bool]:
        """Bytes of a running attempt's stdout or stderr, and whether no more can come from here."""
        ...
