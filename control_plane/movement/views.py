"""Planned moves and drains as people see them: values between the rows, the stories and the doors.

Made by `planning.py` from rows and the router's answers; turned into messages by the doors' codecs.
"""

from dataclasses import dataclass

from control_plane.routing.port import Verdict


@dataclass(frozen=True, slots=True)
class NodePlan:
    """What becomes of one node: kept | resumed | run again | not started. `why` is for a person;
    `bytes` are to be copied to the target's store for it."""

    node: str
    what: str
    why: str = ""
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class MigrationView:
    """`number` 0 = a plan only. `phase` is PREPARE, QUIESCE, CHECKPOINT, RELEASED, FENCE, ASSIGN,
    CLAIMED or RESUMED while it is under way or done, and REFUSED, FAILED, TAKEN_OVER (its source
    died meanwhile) or ENDED (the run ended meanwhile) when it came to something else."""

    execution: str
    number: int
    cause: str
    from_cluster: str
    to_cluster: str
    phase: str
    reason: str = ""
    why: str = ""
    nodes: tuple[NodePlan, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    requested_ns: int = 0
    ended_ns: int = 0
    pause_ns: int = 0


@dataclass(frozen=True, slots=True)
class DrainView:
    """`number` 0 = a plan only. `staying` are pinned, or nobody takes them: their migrations say
    why."""

    cluster: str
    number: int
    phase: str
    total: int = 0
    moved: int = 0
    ended: int = 0
    staying: int = 0
    started_ns: int = 0
    ended_ns: int = 0
    migrations: tuple[MigrationView, ...] = ()
