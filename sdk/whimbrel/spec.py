"""The shared vocabulary: frozen values that every room speaks, in the middle between wire and rows.

Made by the compiler (specifications), the control plane (assignments) and the agent (attempts);
turned into protobuf only by `codec.py`. JSON forms of values are plain Python objects as
`json.loads` gives them.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

INLINE_LIMIT = 64 * 1024
"""Bytes of an outputs document that travels inside an event; a larger one becomes an object."""


class Owner(StrEnum):
    """Who has to act on a failure. Only `system` failures are retried elsewhere for free."""

    USER = "user"
    SYSTEM = "system"
    CONFIG = "config"


class Phase(StrEnum):
    """Where an execution stands. WAITING always comes with a machine-readable reason."""

    QUEUED = "QUEUED"
    WAITING = "WAITING"
    ASSIGNED = "ASSIGNED"
    RUNNING = "RUNNING"
    MOVING = "MOVING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    ABORTED = "ABORTED"

    @property
    def terminal(self) -> bool:
        return self in (Phase.SUCCEEDED, Phase.FAILED, Phase.ABORTED)


class Mode(StrEnum):
    """What a second copy of a run would do: no harm, harm, or there never is one."""

    IDEMPOTENT = "idempotent"
    EXCLUSIVE = "exclusive"
    PINNED = "pinned"


class Want(StrEnum):
    """The level an assignment asks for; within an epoch it only rises."""

    RUN = "run"
    QUIESCE = "quiesce"
    CANCEL = "cancel"


@dataclass(frozen=True, slots=True)
class Artifact:
    """Bytes in one region's store. `sha256` is the identity, `uri` only where a copy lies."""

    uri: str
    sha256: str
    bytes: int
    region: str
    kind: str = "file"
    allowed_regions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Resources:
    """Zero means "not said". cpu in cores, memory and storage in bytes."""

    cpu: float = 0.0
    mem_bytes: int = 0
    gpu: int = 0
    ephemeral_storage_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Variable:
    """One input or output. `default` is a JSON form, meaningless when required."""

    name: str
    schema: Mapping[str, Any]
    required: bool = True
    default: Any = None


@dataclass(frozen=True, slots=True)
class Interface:
    inputs: tuple[Variable, ...] = ()
    outputs: tuple[Variable, ...] = ()


@dataclass(frozen=True, slots=True)
class CacheSpec:
    enabled: bool = False
    version: str = ""
    serialize: bool = False
    ignored_inputs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """`entry_point` is "module:qualname" in the bundle; a time-out is of one attempt, 0 = none."""

    name: str
    entry_point: str
    bundle: str
    interface: Interface
    requests: Resources = Resources()
    limits: Resources = Resources()
    retries: int = 0
    timeout_seconds: float = 0.0
    environment: Mapping[str, str] = field(default_factory=dict[str, str])
    container_image: str = ""
    interruptible: bool = False
    secrets: tuple[str, ...] = ()
    cache: CacheSpec = CacheSpec()
    warm: bool = False
    """It may run in a pod that ran others of the same code and resources before."""


@dataclass(frozen=True, slots=True)
class Literal:
    value: Any


@dataclass(frozen=True, slots=True)
class InputRef:
    """A workflow input, by name."""

    name: str


@dataclass(frozen=True, slots=True)
class OutputRef:
    """An output of an earlier node; `path` are attribute or index steps into the value."""

    node: str
    name: str
    path: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ListBinding:
    items: tuple["Binding", ...]


@dataclass(frozen=True, slots=True)
class MapBinding:
    items: Mapping[str, "Binding"]


Binding = Literal | InputRef | OutputRef | ListBinding | MapBinding


@dataclass(frozen=True, slots=True)
class NodeOverrides:
    """None means "as the task says"."""

    requests: Resources | None = None
    limits: Resources | None = None
    retries: int | None = None
    timeout_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class NodeSpec:
    """One step of a graph. `task` names a TaskSpec of the same workflow."""

    id: str
    task: str
    inputs: Mapping[str, Binding] = field(default_factory=dict[str, "Binding"])
    upstream: tuple[str, ...] = ()
    overrides: NodeOverrides = NodeOverrides()


@dataclass(frozen=True, slots=True)
class PlacementPolicy:
    """Globs for regions (in order of preference) and clusters; empty = any. 0 = wait for ever.

    `regions` is also where its data may lie; `replicate` names those of them that get a copy. Of
    two runs the one with the higher `priority` comes first."""

    regions: tuple[str, ...] = ()
    clusters: tuple[str, ...] = ()
    mode: Mode = Mode.IDEMPOTENT
    failover: bool = True
    prefer: tuple[str, ...] = ()
    max_wait_seconds: float = 0.0
    replicate: tuple[str, ...] = ()
    priority: int = 0


@dataclass(frozen=True, slots=True)
class WorkflowSpec:
    """An immutable graph; `nodes` in an order in which every node follows those it reads."""

    name: str
    interface: Interface
    nodes: tuple[NodeSpec, ...]
    tasks: tuple[TaskSpec, ...]
    outputs: Mapping[str, Binding]
    bundle: str
    placement: PlacementPolicy = PlacementPolicy()
    failure_policy: str = "fail_immediately"

    def task(self, name: str) -> TaskSpec:
        return next(task for task in self.tasks if task.name == name)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why something did not work: whose it is, what kind, one line to act on, and where."""

    owner: Owner
    kind: str
    message: str
    node: str = ""
    traceback: str = ""


@dataclass(frozen=True, slots=True)
class Assignment:
    """A standing wish that `cluster` runs `execution` at `epoch`."""

    execution: str
    epoch: int
    cluster: str
    want: Want = Want.RUN
    gate: int = 0
    traceparent: str = ""


@dataclass(frozen=True, slots=True)
class Outputs:
    """What one attempt of a node made. `value` is the JSON document output name -> JSON form as
    text, "" when it is larger than INLINE_LIMIT and lies in the store as `offloaded`."""

    value: str
    digest: str
    artifacts: tuple[Artifact, ...] = ()
    offloaded: Artifact | None = None


def canonical(value: Any) -> str:
    """The one JSON text of a value: keys sorted, no white space, no NaN."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def sha256(text: str | bytes) -> str:
    return hashlib.sha256(text.encode() if isinstance(text, str) else text).hexdigest()


def tree(spec: WorkflowSpec | TaskSpec) -> dict[str, Any]:
    """The specification as plain JSON objects: what digests and differences are made from.

    `warm`, `replicate` and `priority` count only when they are set, so that they changed no digest
    made before there were any.
    """
    value = asdict(spec)
    for name in ("replicate", "priority"):
        if value.get("placement") and not value["placement"][name]:
            del value["placement"][name]
    for task in (value, *value.get("tasks", ())):
        if task.get("warm") is False:
            del task["warm"]
    return value


def digest(spec: WorkflowSpec | TaskSpec) -> str:
    return sha256(canonical(tree(spec)))


def input_digest(task_digest: str, inputs: Mapping[str, Any]) -> str:
    """Digest of (task, inputs): an output is reused only where this would be the same now (I10).

    Artifacts count by content, not by place: copies in two regions are one value.
    """
    return sha256(canonical([task_digest, by_content(inputs)]))


ARTIFACT_KEY = "$artifact"
"""JSON form of an artifact: {"$artifact": {uri, sha256, bytes, region, kind, allowed_regions}}."""


def by_content(value: Any) -> Any:
    """The value with every artifact reduced to its content digest."""
    match value:
        case {"$artifact": {"sha256": content}, **rest} if not rest:
            return {ARTIFACT_KEY: content}
        case Mapping():
            return {key: by_content(item) for key, item in value.items()}  # pyright: ignore[reportUnknownVariableType] JSON
        case list() | tuple():
            return [by_content(item) for item in value]  # pyright: ignore[reportUnknownVariableType] JSON
        case _:
            return value
