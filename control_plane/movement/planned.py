"""What the stories of planned moves and drains say to their steps: plain values, names, a seam.

Stories (`migrate.py`, `drain.py`) hold no I/O; steps (`migrating.py`, `draining.py`) do one thing
to SQL and the router. It all ends up in Temporal's history, so fields are only ever added.
"""

from dataclasses import dataclass
from typing import Protocol

PREPARE = "migrate_prepare"
QUIESCE = "migrate_quiesce"
RELEASED = "migrate_released"
TAKE = "migrate_take"
HAND_OVER = "migrate_hand_over"
SEND = "migrate_send"
CLAIMED = "migrate_claimed"
RESUMED = "migrate_resumed"
END = "migrate_end"
EMPTY = "drain_empty"

WATCH_SECONDS = 0.15
"""Between two looks of a step that waits for a row. Longer adds to a move's pause as much; shorter
is load on SQL for every open move."""

LONG_SECONDS = 3600.0
"""One try of a step that waits without a limit: the history grows by as many events an hour."""

DRAIN_SECONDS = 20.0
"""One try of a drain's step: how often the history of a drain grows."""


def migrate_id(execution: str, number: int) -> str:
    return f"migrate/{execution}/{number}"


def drain_id(cluster: str, number: int) -> str:
    return f"drain/{cluster}/{number}"


@dataclass(frozen=True, slots=True)
class Migrate:
    """A planned move; the rest of what is known of it is in its row. `quiesce_seconds` is what the
    source has to let go, `claim_seconds` the target to claim, `resume_seconds` user code to run."""

    execution: str
    number: int
    cause: str = "migration"
    quiesce_seconds: float = 60.0
    claim_seconds: float = 10.0
    resume_seconds: float = 60.0
    copy_seconds: float = 600.0


@dataclass(frozen=True, slots=True)
class Stage:
    """Answer of a step. `state`: go | released | silent | placed | claimed | unclaimed | resumed,
    or a phase in which the move ends: REFUSED FAILED TAKEN_OVER ENDED. `patient`: only its owner
    may let go of this run, however long that takes."""

    state: str
    cluster: str = ""
    epoch: int = 0
    reason: str = ""
    why: str = ""
    patient: bool = False

    @property
    def over(self) -> bool:
        return self.state in ("REFUSED", "FAILED", "TAKEN_OVER", "ENDED")


@dataclass(frozen=True, slots=True)
class Wait:
    """Wait at most `seconds` for what was done at `epoch`."""

    story: Migrate
    seconds: float
    epoch: int = 0


@dataclass(frozen=True, slots=True)
class Send:
    """Place the run: at its target, or back when nobody claimed `unclaimed_epoch`."""

    story: Migrate
    unclaimed_epoch: int = 0


@dataclass(frozen=True, slots=True)
class End:
    story: Migrate
    phase: str
    reason: str = ""
    why: str = ""


@dataclass(frozen=True, slots=True)
class Migrated:
    """End of a planned move: its phase, and where the run is."""

    phase: str
    cluster: str = ""


@dataclass(frozen=True, slots=True)
class Drained:
    """Where a drain stands: `phase` RUNNING, DONE or CANCELLED."""

    phase: str
    moved: int = 0
    ended: int = 0
    staying: int = 0


@dataclass(frozen=True, slots=True)
class Empty:
    """Of one cluster; at most `at_once` of its runs migrate at the same time."""

    cluster: str
    number: int
    at_once: int = 16


class Leaves(Protocol):
    """What `migrating.py` does; tests put a fake here, and in the places of the next two."""

    async def prepare(self, story: Migrate) -> Stage: ...
    async def quiesce(self, story: Migrate) -> Stage: ...
    async def released(self, wait: Wait) -> Stage: ...
    async def take(self, story: Migrate) -> Stage: ...


class Settles(Protocol):
    """What `settling.py` does."""

    async def hand_over(self, story: Migrate) -> Stage: ...
    async def send(self, send: Send) -> Stage: ...
    async def claimed(self, wait: Wait) -> Stage: ...
    async def resumed(self, wait: Wait) -> Stage: ...
    async def end(self, end: End) -> Migrated: ...


class Empties(Protocol):
    """What `draining.py` does."""

    async def empty(self, drain: Empty) -> Drained: ...


@dataclass(frozen=True, slots=True)
class PlannedSteps:
    leaving: Leaves
    settling: Settles
    draining: Empties
