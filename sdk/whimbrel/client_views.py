"""What the endpoint answers, as frozen values, and the JSON object that people and scripts see.

Made by `rpc.py` from the wire; read by the client's users and shown by the command line.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from whimbrel.client_moves import MigrationView
from whimbrel.client_times import rfc3339
from whimbrel.spec import Failure, Phase, Resources


@dataclass(frozen=True, slots=True)
class NodeView:
    id: str
    task: str
    phase: str
    attempt: int
    epoch: int
    cluster: str
    cache: str
    checkpoint: str
    started_ns: int
    ended_ns: int
    error: Failure | None
    lineage: str
    host: str = ""
    avoided: tuple[str, ...] = ()
    user_failures: int = 0
    system_failures: int = 0

    def as_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "task": self.task,
            "phase": self.phase,
            "attempt": self.attempt,
            "epoch": self.epoch,
            "cluster": self.cluster,
            "cache": self.cache or "DISABLED",
            "checkpoint": self.checkpoint or None,
            "started": rfc3339(self.started_ns),
            "ended": rfc3339(self.ended_ns),
            "lineage": self.lineage or None,
            "host": self.host or None,
            "avoided": list(self.avoided),
            "user_failures": self.user_failures,
            "system_failures": self.system_failures,
            "error": failure_as_json(self.error),
        }


@dataclass(frozen=True, slots=True)
class VerdictView:
    cluster: str
    region: str
    accepted: bool
    rule: str
    why: str
    score: float


@dataclass(frozen=True, slots=True)
class PlacementView:
    epoch: int
    cluster: str
    region: str
    cause: str
    reason: str
    decided_ns: int
    verdicts: tuple[VerdictView, ...]

    def as_json(self) -> dict[str, Any]:
        return {
            "epoch": self.epoch,
            "cluster": self.cluster,
            "cause": self.cause,
            "reason": self.reason or None,
            "decided": rfc3339(self.decided_ns),
            "verdicts": [
                {
                    "cluster": verdict.cluster,
                    "accepted": verdict.accepted,
                    "rule": verdict.rule or None,
                    "why": verdict.why,
                    "score": verdict.score,
                }
                for verdict in self.verdicts
            ],
        }


@dataclass(frozen=True, slots=True)
class TimelineView:
    at_ns: int
    epoch: int
    kind: str
    cluster: str
    text: str


@dataclass(frozen=True, slots=True)
class ExecutionView:
    """One run as the endpoint knows it. Nodes, placements, timeline and migration (the newest
    planned one) are empty in listings. `next_look_ns` is when a waiting run is looked at again at
    the latest, 0 = it does not wait."""

    project: str
    domain: str
    name: str
    workflow: str
    version: str
    phase: Phase
    reason: str
    region: str
    cluster: str
    epoch: int
    inputs: Mapping[str, Any]
    outputs: Mapping[str, Any] | None
    error: Failure | None
    created_ns: int
    started_ns: int
    ended_ns: int
    trace_id: str
    mode: str
    nodes: tuple[NodeView, ...] = ()
    placements: tuple[PlacementView, ...] = ()
    timeline: tuple[TimelineView, ...] = ()
    next_look_ns: int = 0
    migration: MigrationView | None = None

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "project": self.project,
            "domain": self.domain,
            "workflow": self.workflow,
            "version": self.version,
            "phase": self.phase.value,
            "reason": self.reason or None,
            "region": self.region or None,
            "cluster": self.cluster or None,
            "epoch": self.epoch,
            "inputs": dict(self.inputs),
            "outputs": None if self.outputs is None else dict(self.outputs),
            "error": failure_as_json(self.error),
            "created": rfc3339(self.created_ns),
            "started": rfc3339(self.started_ns),
            "ended": rfc3339(self.ended_ns),
            "trace_id": self.trace_id,
            "mode": self.mode,
            "nodes": [node.as_json() for node in self.nodes],
            "placements": [placement.as_json() for placement in self.placements],
            "timeline": [
                {
                    "at": rfc3339(entry.at_ns),
                    "epoch": entry.epoch,
                    "kind": entry.kind,
                    "cluster": entry.cluster,
                    "text": entry.text,
                }
                for entry in self.timeline
            ],
            "next_look": rfc3339(self.next_look_ns),
            "migration": None if self.migration is None else self.migration.as_json(),
        }


def failure_as_json(failure: Failure | None) -> dict[str, Any] | None:
    if failure is None:
        return None
    return {
        "owner": failure.owner.value,
        "kind": failure.kind,
        "node": failure.node,
        "message": failure.message,
        "traceback": failure.traceback or None,
    }


@dataclass(frozen=True, slots=True)
class OfferView:
    """What a cluster can run at all. `images` are globs, empty = any; `refused_images` were lately
    found not to be had there."""

    images: tuple[str, ...] = ()
    refused_images: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ClusterView:
    """`alive` is None when the router can't be asked. `ill` is why its compute does not answer its
    agent, "" = it does. `offer` None: it runs whatever it is given."""

    name: str
    region: str
    labels: Mapping[str, str]
    scheduling: str
    alive: bool | None
    suspected: bool
    cluster_epoch: int
    lost_since_ns: int
    owned_executions: int
    running_tasks: int
    queued_tasks: int
    free: Resources
    allocatable: Resources
    ill: str = ""
    offer: OfferView | None = None

    @property
    def state(self) -> str:
        match self.alive, self.suspected:
            case None, _:
                return "UNKNOWN"
            case True, _:
                return "ALIVE"
            case _, True:
                return "LOST"
            case _:
                return "ABSENT"

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "region": self.region,
            "state": self.state,
            "scheduling": self.scheduling,
            "cluster_epoch": self.cluster_epoch,
            "lost_since": rfc3339(self.lost_since_ns),
            "executions": self.owned_executions,
            "tasks": {"running": self.running_tasks, "queued": self.queued_tasks},
            "free": {"cpu": self.free.cpu, "mem_bytes": self.free.mem_bytes, "gpu": self.free.gpu},
            "allocatable": {
                "cpu": self.allocatable.cpu,
                "mem_bytes": self.allocatable.mem_bytes,
                "gpu": self.allocatable.gpu,
            },
            "labels": dict(self.labels),
            "ill": self.ill or None,
            "offer": None
            if self.offer is None
            else {
                "images": list(self.offer.images),
                "refused_images": list(self.offer.refused_images),
                "secrets": list(self.offer.secrets),
            },
        }


@dataclass(frozen=True, slots=True)
class SpanView:
    span_id: str
    parent_id: str
    name: str
    service: str
    start_ns: int
    end_ns: int
    error: bool
    attributes: Mapping[str, str] = field(default_factory=dict[str, str])
    links: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RegisteredView:
    name: str
    version: str
    digest: str
    created: bool


@dataclass(frozen=True, slots=True)
class LogView:
    node: str
    attempt: int
    stream: str
    data: bytes
