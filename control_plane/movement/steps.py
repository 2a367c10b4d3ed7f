"""What stories and their steps say to each other: plain values, and the names of the steps.

Stories (`failover.py`, `move.py`) run in Temporal and hold no I/O; steps (`activities.py`) do one
thing to SQL and the router and answer one of these. Everything here ends up in Temporal's history,
so fields are only ever added.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from temporalio.common import RetryPolicy

WATCH_LOSS = "watch_loss"
TAKE_OVER_BATCH = "take_over_batch"
SUMMARIZE = "summarize"
RELEASE = "release"
PLACE = "place"
CLAIMED = "claimed"

TASK_QUEUE = "whimbrel-movement"
PLANNED_QUEUE = "whimbrel-movement-planned"
"""Steps of planned moves; they may wait long, and have places of their own to do it in."""

PATIENT = RetryPolicy(
    initial_interval=timedelta(milliseconds=200),
    backoff_coefficient=2.0,
    maximum_interval=timedelta(seconds=5),
    maximum_attempts=0,
)
"""Steps are idempotent by the fence, so they are tried until they work; 5 s bounds the wait after
an outage."""

STEP_TIMEOUT = timedelta(seconds=60)
"""Of one try. Too short and a slow batch never ends; a dead worker is noticed by the heartbeat,
not by this."""

STEP_SILENCE = timedelta(seconds=5)
"""Without a heartbeat for so long a step is given to another worker. Shorter than the event loop's
worst stall and steps run twice (harmless, wasteful); longer and a killed control plane delays the
takeover by as much."""


def failover_id(cluster: str, cluster_epoch: int) -> str:
    return f"failover/{cluster}/{cluster_epoch}"


def move_id(execution: str, epoch: int) -> str:
    return f"move/{execution}/{epoch}"


@dataclass(frozen=True, slots=True)
class Failover:
    """Input of a failover; the second half is what a continued run carries on: `guarded` for
    stories that looked once only, `hold_over` the hold was ended by its limit, `back` the cluster
    was seen again and had its time to claim."""

    cluster: str
    cluster_epoch: int
    since_ns: int
    batch: int = 100
    rate: float = 200.0
    hold_max_seconds: float = 300.0
    claim_grace_seconds: float = 5.0
    guarded: bool = False
    taken: int = 0
    waiting: int = 0
    hold_over: bool = False
    back: bool = False


@dataclass(frozen=True, slots=True)
class Loss:
    """What the router sees of the lost cluster: `hold` is the reason to wait, "" = go on."""

    hold: str = ""
    returned: bool = False


@dataclass(frozen=True, slots=True)
class Hold:
    """A look at the loss; `ended` when the hold has lasted long enough, whatever is seen."""

    cluster: str
    cluster_epoch: int
    since_ns: int
    held_seconds: float = 0.0
    ended: bool = False


@dataclass(frozen=True, slots=True)
class Batch:
    cluster: str
    cluster_epoch: int
    limit: int


@dataclass(frozen=True, slots=True)
class Taken:
    """`taken` rows were fenced away or found half-way; `waiting` of them found no place. `left`:
    there may be more although nothing was taken, because what was seen changed meanwhile."""

    taken: int
    waiting: int
    left: bool = False


@dataclass(frozen=True, slots=True)
class Summary:
    cluster: str
    cluster_epoch: int
    moved: int
    waiting: int


@dataclass(frozen=True, slots=True)
class Move:
    """One execution, as seen at `epoch`, leaves its cluster."""

    execution: str
    epoch: int
    cause: str = "failover"
    claim_timeout_seconds: float = 15.0


@dataclass(frozen=True, slots=True)
class Released:
    """`ours` is false when the row has gone on without this story; then there is nothing to do."""

    ours: bool
    wait_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Placed:
    """Where it went; `cluster` "" = nowhere, and the row says why."""

    cluster: str
    epoch: int


@dataclass(frozen=True, slots=True)
class Moved:
    """End of a move: claimed | unclaimed (the sweeper places it again) | waiting | not ours."""

    outcome: str
    cluster: str = ""


class Steps(Protocol):
    """What `activities.py` does for the stories; tests put a fake here."""

    async def watch_loss(self, hold: Hold) -> Loss: ...
    async def take_over_batch(self, batch: Batch) -> Taken: ...
    async def summarize(self, story: Failover) -> Summary: ...
    async def release(self, move: Move) -> Released: ...
    async def place(self, move: Move) -> Placed: ...
    async def claimed(self, move: Move) -> bool: ...
