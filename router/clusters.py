"""What the router knows about clusters, as frozen values; and their JSON form in etcd.

Made by `inventory.py` from etcd's keys; read by the placement rules, the membership and the doors
in `rpc.py`. Everything here may be lost: SQL and the agents can tell it again.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from whimbrel.spec import Assignment, PlacementPolicy, Resources, Want, canonical

from router.returns import Return, Standing

REGISTRATIONS = "/registrations/"
SESSIONS = "/sessions/"
CAPACITY = "/capacity/"
ASSIGNMENTS = "/assignments/"
RETURNS = "/returns/"

NOTHING_SAID = Resources()
ANYWHERE = PlacementPolicy()


@dataclass(frozen=True, slots=True)
class Registration:
    """The router's copy of what SQL says. `scheduling`: active | cordoned | drained."""

    name: str
    region: str
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    scheduling: str = "active"


@dataclass(frozen=True, slots=True)
class Session:
    """One agent's presence, written under its lease. `stream` names the one stream that counts,
    `gateway` the replica (host:port) that holds it."""

    cluster: str
    session: str
    cluster_epoch: int
    incarnation: str
    lease: int
    gateway: str
    stream: str


@dataclass(frozen=True, slots=True)
class Offer:
    """What a cluster can run at all. `images` are globs, empty = any; `refused_images` were lately
    not to be had there; `secrets` are the names it has."""

    images: tuple[str, ...] = ()
    refused_images: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Capacity:
    """As the agent reports it. `max_executions` 0 = no limit of its own. `ill` is why its compute
    does not answer, "" = it does. `offer` None: it runs whatever it is given."""

    allocatable: Resources = NOTHING_SAID
    free: Resources = NOTHING_SAID
    max_executions: int = 0
    held_executions: int = 0
    running_tasks: int = 0
    queued_tasks: int = 0
    ill: str = ""
    offer: Offer | None = None


@dataclass(frozen=True, slots=True)
class Cluster:
    """Everything about one cluster at one moment; `assigned` are the executions with a key.
    `standing` None: it was not lost lately."""

    registration: Registration
    session: Session | None = None
    capacity: Capacity | None = None
    assigned: frozenset[str] = frozenset()
    suspected: bool = False
    standing: Standing | None = None

    @property
    def name(self) -> str:
        return self.registration.name

    @property
    def alive(self) -> bool:
        return self.session is not None and not self.suspected


@dataclass(frozen=True, slots=True)
class Requirement:
    """What one execution needs of a cluster. `largest` must fit one cluster at all; `avoid` are
    clusters not to be chosen; `allowed_regions` is the data's residency, empty = any; `images` and
    `secrets` are those that its nodes name; `only` are the clusters that alone may be
    chosen, empty = any."""

    execution: str
    policy: PlacementPolicy = ANYWHERE
    largest: Resources = NOTHING_SAID
    avoid: tuple[str, ...] = ()
    allowed_regions: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ()
    only: tuple[str, ...] = ()


def encode(
    value: Registration | Session | Capacity | Assignment | Return,
) -> bytes:
    return canonical(asdict(value)).encode()


def registration_from(text: bytes) -> Registration:
    return Registration(**json.loads(text))


def session_from(text: bytes) -> Session:
    return Session(**json.loads(text))


def capacity_from(text: bytes) -> Capacity:
    said: dict[str, Any] = json.loads(text)
    said["allocatable"] = Resources(**said["allocatable"])
    said["free"] = Resources(**said["free"])
    if said.get("offer") is not None:
        offer: dict[str, list[str]] = said["offer"]
        said["offer"] = Offer(**{name: tuple(values) for name, values in offer.items()})
    return Capacity(**said)


def return_from(text: bytes) -> Return:
    said: dict[str, Any] = json.loads(text)
    said["losses"] = tuple(said["losses"])
    return Return(**said)


def assignment_from(text: bytes) -> Assignment:
    said: dict[str, Any] = json.loads(text)
    said["want"] = Want(said["want"])
    return Assignment(**said)
