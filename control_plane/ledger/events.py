"""What agents tell the ledger, as frozen values; made from the wire by `codec.py`, stored by
`commit.py`.

Every event names (execution, epoch); the batch names (cluster, cluster epoch) and numbers them.
"""

from dataclasses import dataclass
from enum import StrEnum

from whimbrel.spec import Artifact, Failure


@dataclass(frozen=True, slots=True)
class Output:
    """A node's result. `value` is its JSON document, "" when it lies in the store as
    `offloaded`."""

    node: str
    attempt: int
    value: str
    input_digest: str
    output_digest: str
    offloaded: Artifact | None = None
    artifacts: tuple[Artifact, ...] = ()
    started_ns: int = 0
    ended_ns: int = 0
    stdout: Artifact | None = None
    stderr: Artifact | None = None
    epoch: int = 0
    host: str = ""


@dataclass(frozen=True, slots=True)
class Status:
    """`phase` RUNNING, or FAILED (`will_retry`: the node is tried again). `avoided` are hosts the
    attempt was kept away from."""

    node: str
    attempt: int
    phase: str
    started_ns: int = 0
    ended_ns: int = 0
    error: Failure | None = None
    will_retry: bool = False
    stdout: Artifact | None = None
    stderr: Artifact | None = None
    host: str = ""
    avoided: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Saved:
    """A checkpoint of a node that is not done."""

    node: str
    attempt: int
    artifact: Artifact
    at_ns: int


@dataclass(frozen=True, slots=True)
class Succeeded:
    outputs: str


@dataclass(frozen=True, slots=True)
class Failed:
    error: Failure


@dataclass(frozen=True, slots=True)
class Released:
    """The owner lets go; the last event of its outbox for this execution. `reason` "" = it was
    asked to, "unschedulable" = it has no room, "drain" = its agent stops; `message` is for a
    person."""

    reason: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class Unreachable:
    """`node` could not read these uris."""

    node: str
    uris: tuple[str, ...]


Body = Output | Status | Saved | Succeeded | Failed | Released | Unreachable


@dataclass(frozen=True, slots=True)
class Event:
    execution: str
    epoch: int
    body: Body


@dataclass(frozen=True, slots=True)
class Batch:
    """Events of one session, the first with number `first`; numbers count from 1."""

    cluster: str
    cluster_epoch: int
    first: int
    events: tuple[Event, ...]


class Result(StrEnum):
    COMMITTED = "COMMITTED"
    ALREADY_COMMITTED = "ALREADY_COMMITTED"
    FENCED = "FENCED"
    CONFLICT = "CONFLICT"
    INCOMPLETE = "INCOMPLETE"


@dataclass(frozen=True, slots=True)
class Verdict:
    """Of the item at `index`. `kept` is the output that stays, for a CONFLICT."""

    index: int
    result: Result
    current_epoch: int = 0
    kept: Output | None = None


@dataclass(frozen=True, slots=True)
class Committed:
    """`gap_expected` not 0: nothing was taken, send from there. `verdicts`: what is not COMMITTED.

    `touched` are executions with news, `moved` those whose ownership changed.
    """

    cursor: int
    gap_expected: int = 0
    verdicts: tuple[Verdict, ...] = ()
    touched: tuple[str, ...] = ()
    moved: tuple[str, ...] = ()
