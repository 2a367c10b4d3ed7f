"""Planned moves and drains as the endpoint answers them: frozen values, and the JSON that people
and scripts see.

Made by `rpc.py` from the wire; read by the client's users and shown by the command line.
"""

from dataclasses import dataclass
from typing import Any

from whimbrel.client_times import rfc3339


@dataclass(frozen=True, slots=True)
class NodePlanView:
    """What becomes of one node: kept | resumed | run again | not started. `bytes` are copied to the
    target's store for it."""

    node: str
    what: str
    why: str = ""
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class RefusalView:
    """Why a cluster can't be the target."""

    cluster: str
    rule: str
    why: str


DONE, WELL = "RESUMED", ("RESUMED", "ENDED", "TAKEN_OVER")


@dataclass(frozen=True, slots=True)
class MigrationView:
    """`number` 0 = a plan only. `phase` PREPARE, QUIESCE, CHECKPOINT, RELEASED, FENCE, ASSIGN,
    CLAIMED, RESUMED; or REFUSED, FAILED, TAKEN_OVER (its source died meanwhile), ENDED (the run
    ended meanwhile)."""

    execution: str
    number: int
    cause: str
    from_cluster: str
    to_cluster: str
    phase: str
    reason: str = ""
    why: str = ""
    nodes: tuple[NodePlanView, ...] = ()
    refusals: tuple[RefusalView, ...] = ()
    requested_ns: int = 0
    ended_ns: int = 0
    pause_ns: int = 0

    @property
    def well(self) -> bool:
        """It came to what was wanted, or to something as good."""
        return self.phase in WELL

    def as_json(self) -> dict[str, Any]:
        return {
            "execution": self.execution,
            "number": self.number,
            "cause": self.cause,
            "from": self.from_cluster or None,
            "to": self.to_cluster or None,
            "phase": self.phase,
            "reason": self.reason or None,
            "why": self.why,
            "nodes": [
                {"node": node.node, "what": node.what, "why": node.why, "bytes": node.bytes}
                for node in self.nodes
            ],
            "refusals": [
                {"cluster": one.cluster, "rule": one.rule, "why": one.why} for one in self.refusals
            ],
            "requested": rfc3339(self.requested_ns),
            "ended": rfc3339(self.ended_ns),
            "pause_seconds": self.pause_ns / 1e9 if self.pause_ns else None,
        }


@dataclass(frozen=True, slots=True)
class DrainView:
    """`number` 0 = a plan only. `phase` RUNNING, DONE or CANCELLED (it was uncordoned). `staying`
    are pinned, or nobody takes them: their migrations say why."""

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

    def as_json(self) -> dict[str, Any]:
        return {
            "cluster": self.cluster,
            "number": self.number,
            "phase": self.phase,
            "total": self.total,
            "moved": self.moved,
            "ended": self.ended,
            "staying": self.staying,
            "started": rfc3339(self.started_ns),
            "finished": rfc3339(self.ended_ns),
            "migrations": [one.as_json() for one in self.migrations],
        }
