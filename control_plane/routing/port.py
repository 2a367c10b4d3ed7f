"""What the control plane asks the router, and what it hands to movement: the two seams that tests
replace.

Called by dispatch, sweeper, clusters, logs and movement; `rpc.py` answers for the real router.
Every call is idempotent and raises `Unreachable` when the router does not answer.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from whimbrel.spec import Artifact, Assignment, PlacementPolicy, Resources


@dataclass(frozen=True, slots=True)
class Requirement:
    """`avoid` are clusters not to be chosen; `allowed_regions` the data's residency, empty = any;
    `images` and `secrets` what the nodes name; `only` the clusters that alone may be chosen, empty
    = any."""

    execution: str
    policy: PlacementPolicy
    largest: Resources
    avoid: tuple[str, ...] = ()
    allowed_regions: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ()
    only: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was said of one cluster; `rule` "" and a score when accepted."""

    cluster: str
    accepted: bool
    rule: str = ""
    why: str = ""
    score: float = 0.0
    region: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """Where one execution goes, with a verdict for every cluster. `cluster` "" = nowhere, `reason`
    says why."""

    execution: str
    cluster: str
    region: str = ""
    reason: str = ""
    verdicts: tuple[Verdict, ...] = ()
    decided_ns: int = 0


@dataclass(frozen=True, slots=True)
class AssignResult:
    written: bool
    stored_epoch: int = 0


@dataclass(frozen=True, slots=True)
class Registration:
    name: str
    region: str
    labels: tuple[tuple[str, str], ...] = ()
    scheduling: str = "active"


@dataclass(frozen=True, slots=True)
class Offer:
    """What a cluster can run at all. `images` are globs, empty = any."""

    images: tuple[str, ...] = ()
    refused_images: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Capacity:
    """`ill` is why its compute does not answer, "" = it does. `offer` None: it runs whatever it is
    given."""

    allocatable: Resources = field(default_factory=Resources)
    free: Resources = field(default_factory=Resources)
    max_executions: int = 0
    held_executions: int = 0
    running_tasks: int = 0
    queued_tasks: int = 0
    ill: str = ""
    offer: Offer | None = None


@dataclass(frozen=True, slots=True)
class LiveCluster:
    """One cluster as the router sees it. `suspected` = judged lost; `lost_since_ns` 0 while
    alive."""

    name: str
    region: str
    scheduling: str = "active"
    alive: bool = True
    suspected: bool = False
    cluster_epoch: int = 0
    lost_since_ns: int = 0
    capacity: Capacity = Capacity()
    gateway: str = ""


@dataclass(frozen=True, slots=True)
class Snapshot:
    clusters: tuple[LiveCluster, ...]
    ttl_ms: int


@dataclass(frozen=True, slots=True)
class LogPart:
    """A piece of a log; `end` when no more will be written."""

    data: bytes
    end: bool
    attempt: int


@dataclass(frozen=True, slots=True)
class LogPlace:
    """`uri` is where this attempt's log is stored, "" = not known to be stored."""

    execution: str
    node: str
    attempt: int
    stream: str
    uri: str = ""


class Router(Protocol):
    async def place(self, requirements: Sequence[Requirement]) -> list[Decision]: ...
    async def assign(self, assignments: Sequence[Assignment]) -> list[AssignResult]: ...
    async def unassign(self, assignments: Sequence[Assignment]) -> list[AssignResult]: ...
    async def sync(self, registrations: Sequence[Registration]) -> None: ...
    async def snapshot(self) -> Snapshot: ...

    async def assigned(self, cluster: str) -> list[Assignment]:
        """The assignment keys of a cluster, answered by the router itself."""
        ...

    async def probe(self, cluster: str, artifacts: Sequence[Artifact]) -> set[str]:
        """Uris that a live agent of this cluster can't read."""
        ...

    async def copy(
        self, cluster: str, artifacts: Sequence[Artifact], *, folder: str
    ) -> dict[str, Artifact]:
        """Copies made, or found, in the store of this cluster's region, below `folder` (PROJECT/
        DOMAIN): uri of the original to its copy, without what could not be copied."""
        ...

    async def read_log(
        self, cluster: str, place: LogPlace, *, offset: int, limit: int
    ) -> LogPart: ...


class Movement(Protocol):
    """Stories that move work. Every call is idempotent: a story has one id, and is started
    once."""

    async def lost(self, cluster: str, cluster_epoch: int, *, since_ns: int) -> None:
        """The session is over: everything it still owns is to be moved."""
        ...

    async def move(self, execution: str, epoch: int, *, cause: str) -> None:
        """An ownerless row in MOVING at `epoch` that no story seems to look after."""
        ...

    async def resume(self, execution: str, number: int, *, epoch: int, cause: str) -> None:
        """The story of an open planned move is told on; if it has been told to its end although
        the move is open, the row at `epoch` is moved as an ownerless one."""
        ...
