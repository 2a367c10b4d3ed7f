"""What agent, router and ledger say to each other, as frozen values; `codec.py` turns them into
wire form and back.

Said by the engine (events, claims) and the session (hello, answers); heard from the router;
nothing here acts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from whimbrel.spec import Artifact, Assignment, Failure, Outputs, Want

from data_plane_agent.launcher import Capacity, Logs

NO_LOGS = Logs()

# --- events of an execution, to the ledger ---


@dataclass(frozen=True, slots=True)
class AttemptRuns:
    """Said only of an attempt that outlives its batch. `avoided` are hosts it was kept away
    from."""

    node: str
    attempt: int
    started_ns: int
    host: str = ""
    avoided: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AttemptFailed:
    node: str
    attempt: int
    failure: Failure
    will_retry: bool
    started_ns: int
    ended_ns: int
    logs: Logs = NO_LOGS
    host: str = ""
    avoided: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NodeOutput:
    """`epoch` is set in answers of a Claim: the one it was committed at."""

    node: str
    attempt: int
    outputs: Outputs
    input_digest: str
    started_ns: int
    ended_ns: int
    logs: Logs = NO_LOGS
    epoch: int = 0
    host: str = ""


@dataclass(frozen=True, slots=True)
class Checkpointed:
    node: str
    attempt: int
    artifact: Artifact
    at_ns: int


@dataclass(frozen=True, slots=True)
class Succeeded:
    outputs: str
    artifacts: tuple[Artifact, ...] = ()


@dataclass(frozen=True, slots=True)
class Failed:
    failure: Failure


@dataclass(frozen=True, slots=True)
class Unreachable:
    """`node` can't read these; "" is the workflow's own outputs."""

    node: str
    uris: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Released:
    """We let go of it: `reason` "unschedulable" = there is no room for it here, `message` for a
    person."""

    reason: str
    message: str


Event = (
    AttemptRuns
    | AttemptFailed
    | NodeOutput
    | Checkpointed
    | Succeeded
    | Failed
    | Released
    | Unreachable
)
LAST = (Succeeded, Failed, Released, Unreachable)
"""Nothing of the same execution and epoch follows one of these."""


# --- claim and commit ---


@dataclass(frozen=True, slots=True)
class Wish:
    execution: str
    epoch: int


@dataclass(frozen=True, slots=True)
class NodeTries:
    """`avoid` are hosts of this cluster on which attempts broke for the platform's reasons, newest
    first."""

    node: str
    attempts: int
    user_failures: int
    system_failures: int
    avoid: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Claimed:
    """`replicas` are copies, by the address of the original, to be read in its place; `regions`
    globs of where the run's data may lie; `offload`: values and error texts stay in the region.
    `want` QUIESCE: it is ours only to be let go of."""

    execution: str
    epoch: int
    spec_digest: str
    inputs: str
    traceparent: str = ""
    mode: str = "idempotent"
    outputs: tuple[NodeOutput, ...] = ()
    checkpoints: tuple[Checkpointed, ...] = ()
    tries: tuple[NodeTries, ...] = ()
    replicas: Mapping[str, Artifact] = field(default_factory=dict[str, Artifact])
    regions: tuple[str, ...] = ()
    offload: bool = False
    want: Want = Want.RUN


@dataclass(frozen=True, slots=True)
class NotClaimed:
    """`current_epoch` is the row's."""

    execution: str
    epoch: int
    current_epoch: int = 0
    terminal: bool = False


class Verdict(StrEnum):
    ALREADY_COMMITTED = "ALREADY_COMMITTED"
    FENCED = "FENCED"
    CONFLICT = "CONFLICT"
    INCOMPLETE = "INCOMPLETE"


@dataclass(frozen=True, slots=True)
class Objection:
    """What the ledger says of one event of a batch that is not plainly committed."""

    index: int
    verdict: Verdict
    current_epoch: int = 0
    kept: NodeOutput | None = None

    def doubts(self, epoch: int) -> bool:
        """Of an event said at `epoch`, which is still the run's: what its agent takes for live, or
        for claimed, is not."""
        match self.verdict:
            case Verdict.ALREADY_COMMITTED:
                return False
            case Verdict.FENCED:
                return self.current_epoch <= epoch
            case Verdict.CONFLICT | Verdict.INCOMPLETE:
                return True


@dataclass(frozen=True, slots=True)
class Receipt:
    """`cursor`: everything up to here is settled. `gap`: not 0, nothing was taken, send from this
    number."""

    cursor: int
    gap: int = 0
    objections: tuple[Objection, ...] = ()


class Ledger(Protocol):
    """The ledger as the engine sees it, through the router. Raises errors.Unreachable when nobody
    answers."""

    async def claim(
        self, wishes: Sequence[Wish], *, cluster_epoch: int
    ) -> list[Claimed | NotClaimed]: ...

    async def commit(
        self, events: Sequence[bytes], *, first: int, cluster_epoch: int
    ) -> Receipt: ...

    async def fetch_spec(self, digest: str) -> bytes:
        """Wire form of a WorkflowSpec."""
        ...


# --- the session ---


@dataclass(frozen=True, slots=True)
class Load:
    """What this cluster has room for."""

    capacity: Capacity
    max_executions: int
    held_executions: int


@dataclass(frozen=True, slots=True)
class Hello:
    cluster: str
    incarnation: str
    version: str
    resume_session: str
    last_ack_n: int
    region: str
    load: Load


@dataclass(frozen=True, slots=True)
class Welcome:
    session: str
    cluster_epoch: int
    ttl_seconds: float
    heartbeat_seconds: float
    resumed: bool


@dataclass(frozen=True, slots=True)
class All:
    """Everything assigned to this cluster."""

    assignments: tuple[Assignment, ...]


@dataclass(frozen=True, slots=True)
class Changed:
    assignments: tuple[Assignment, ...]


@dataclass(frozen=True, slots=True)
class Removed:
    """Keys that are gone: stop what is not above their epoch."""

    assignments: tuple[Assignment, ...]


@dataclass(frozen=True, slots=True)
class Probe:
    """Which of these can't be read from here?"""

    id: str
    artifacts: tuple[Artifact, ...]


@dataclass(frozen=True, slots=True)
class Copy:
    """Copy these into this region's store, below `folder`, PROJECT/DOMAIN of their run."""

    id: str
    artifacts: tuple[Artifact, ...]
    folder: str


@dataclass(frozen=True, slots=True)
class ReadLog:
    """`uri` is where the ledger says this attempt's log is stored, "" = it does not say."""

    id: str
    execution: str
    node: str
    attempt: int
    stream: str
    offset: int
    limit: int
    uri: str = ""


@dataclass(frozen=True, slots=True)
class OtherQuestion:
    """One this version does not know."""

    id: str


@dataclass(frozen=True, slots=True)
class Bye:
    """superseded | session_over | shutting_down"""

    reason: str


@dataclass(frozen=True, slots=True)
class Answer:
    """`copied` are (address of the original, its copy here)."""

    id: str
    error: str = ""
    unreadable: tuple[str, ...] = ()
    data: bytes = b""
    end: bool = False
    attempt: int = 0
    copied: tuple[tuple[str, Artifact], ...] = ()


Question = Probe | Copy | ReadLog | OtherQuestion
FromRouter = Welcome | All | Changed | Removed | Question | Bye
FromAgent = Hello | Answer


@dataclass(frozen=True, slots=True)
class Beat:
    """`sent_ns` is on CLOCK_BOOTTIME."""

    session: str
    cluster: str
    cluster_epoch: int
    n: int
    last_ack_n: int
    sent_ns: int
    compute_ok: bool
    engine_progress: int
    work_pending: bool
    load: Load
    held_digest: str


@dataclass(frozen=True, slots=True)
class BeatAck:
    n: int
    sent_ns: int
    renewed: bool
    session_over: bool
