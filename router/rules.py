"""The rules of placement, each a pure function: what refuses a cluster, and what prefers it.

Called by `placement.py` for every cluster and every requirement; a must rule answers why it
refuses, or "" when it does not. Order matters: the first refusal is the one that people read.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from hashlib import sha256

from router.clusters import Cluster, Requirement

Rule = Callable[[Requirement, Cluster], str]


def schedulable(_: Requirement, cluster: Cluster) -> str:
    scheduling = cluster.registration.scheduling
    return "" if scheduling == "active" else f"the cluster is {scheduling}"


def alive(_: Requirement, cluster: Cluster) -> str:
    if cluster.suspected:
        return "its agent is lost"
    return "" if cluster.session is not None else "no agent of it is connected"


def region(requirement: Requirement, cluster: Cluster) -> str:
    globs, name = requirement.policy.regions, cluster.registration.region
    if not globs or rank(globs, name) is not None:
        return ""
    return f"region {name} is none of {', '.join(globs)}"


def residency(requirement: Requirement, cluster: Cluster) -> str:
    allowed, name = requirement.allowed_regions, cluster.registration.region
    if not allowed or name in allowed:
        return ""
    return f"the data must stay in {', '.join(allowed)}; this is {name}"


def named(requirement: Requirement, cluster: Cluster) -> str:
    globs = requirement.policy.clusters
    if not globs or rank(globs, cluster.name) is not None:
        return ""
    return f"the cluster is none of {', '.join(globs)}"


def sent(requirement: Requirement, cluster: Cluster) -> str:
    if not requirement.only or cluster.name in requirement.only:
        return ""
    return f"it is sent to {', '.join(requirement.only)}"


def avoided(requirement: Requirement, cluster: Cluster) -> str:
    return "the run is leaving this cluster" if cluster.name in requirement.avoid else ""


def image(requirement: Requirement, cluster: Cluster) -> str:
    """A cluster that has said nothing yet is refused by `fits`, not here."""
    offer = cluster.capacity.offer if cluster.capacity else None
    if offer is None:
        return ""
    for name in requirement.images:
        if offer.images and rank(offer.images, name) is None:
            return f"image {name} is none of {', '.join(offer.images)}, which it may run"
        if name in offer.refused_images:
            return f"image {name} could not be had there lately"
    return ""


def secrets(requirement: Requirement, cluster: Cluster) -> str:
    offer = cluster.capacity.offer if cluster.capacity else None
    if offer is None:
        return ""
    missing = [name for name in requirement.secrets if name not in offer.secrets]
    if not missing:
        return ""
    return f"it does not have the secret{'s' if missing[1:] else ''} {', '.join(missing)}"


def compute(_: Requirement, cluster: Cluster) -> str:
    """It keeps what runs there; only new work goes elsewhere."""
    ill = cluster.capacity.ill if cluster.capacity else ""
    return f"it takes no new work: {ill}" if ill else ""


def fits(requirement: Requirement, cluster: Cluster) -> str:
    """Zero means "not said" on both sides, but a cluster that says no GPU has none."""
    if cluster.capacity is None:
        return "it has not said yet what it has"
    have, need = cluster.capacity.allocatable, requirement.largest
    if have.cpu and need.cpu > have.cpu:
        return f"a node needs {need.cpu:g} cores, the cluster has {have.cpu:g}"
    if have.mem_bytes and need.mem_bytes > have.mem_bytes:
        return f"a node needs {need.mem_bytes} bytes of memory, the cluster has {have.mem_bytes}"
    if need.gpu > have.gpu:
        return f"a node needs {need.gpu} GPUs, the cluster has {have.gpu}"
    storage = have.ephemeral_storage_bytes
    if storage and need.ephemeral_storage_bytes > storage:
        return (
            f"a node needs {need.ephemeral_storage_bytes} bytes of disk, the cluster has {storage}"
        )
    return ""


def room(requirement: Requirement, cluster: Cluster) -> str:
    most = cluster.capacity.max_executions if cluster.capacity else 0
    taken = occupied(requirement, cluster)
    return f"{taken} of {most} executions are taken" if most and taken >= most else ""


MUST: Sequence[tuple[str, Rule]] = (
    ("scheduling", schedulable),
    ("alive", alive),
    ("region", region),
    ("residency", residency),
    ("cluster", named),
    ("sent", sent),
    ("avoid", avoided),
    ("image", image),
    ("secrets", secrets),
    ("compute", compute),
    ("fits", fits),
    ("room", room),
)
PERMISSION = (region, residency, named, sent)
"""Rules that only the author, the data's owner or who sends it can change: no waiting helps."""
OPERATOR = (schedulable, avoided)
OFFER = (image, secrets)
"""Rules that only who runs the cluster can change, by offering more."""


@dataclass(frozen=True, slots=True)
class Refusal:
    rule: str
    why: str


def refusal(requirement: Requirement, cluster: Cluster) -> Refusal | None:
    for name, rule in MUST:
        if why := rule(requirement, cluster):
            return Refusal(name, why)
    return None


def permitted(requirement: Requirement, cluster: Cluster) -> bool:
    return not any(rule(requirement, cluster) for rule in PERMISSION)


def offers(requirement: Requirement, cluster: Cluster) -> bool:
    return not any(rule(requirement, cluster) for rule in OFFER)


def available(requirement: Requirement, cluster: Cluster) -> bool:
    return not any(rule(requirement, cluster) for rule in OPERATOR)


def rank(globs: Sequence[str], name: str) -> int | None:
    """Place of the first glob that matches: 0 is the most wanted."""
    return next((i for i, glob in enumerate(globs) if fnmatchcase(name, glob)), None)


def occupied(requirement: Requirement, cluster: Cluster) -> int:
    """Executions that count against the cluster's limit; keys and the agent's own count overlap,
    so the larger one is the truth or errs on the safe side of neither by much."""
    held = cluster.capacity.held_executions if cluster.capacity else 0
    return max(held, len(cluster.assigned - {requirement.execution}))


HELD_BACK_WEIGHT = 1e12
REGION_WEIGHT = 1e8
LABEL_WEIGHT = 1e4
MOST_LABELS = 10
MOST_CORES = LABEL_WEIGHT / 2


def score(requirement: Requirement, cluster: Cluster) -> float:
    """The highest wins. The weights keep the preferences apart: a cluster that holds back comes
    after all others, then the wanted order of regions over every label, an earlier label over all
    later ones, any label over free cores."""
    regions, prefer = requirement.policy.regions, requirement.policy.prefer[:MOST_LABELS]
    place = rank(regions, cluster.registration.region) or 0
    labels = cluster.registration.labels
    matched = 0
    for wish in prefer:
        key, _, value = wish.partition("=")
        matched = matched * 2 + (labels.get(key) == value)
    free = max(-MOST_CORES, min(MOST_CORES - 1, round(free_cores(requirement, cluster), 3)))
    wanted = max(len(regions) - place, 0) if regions else 0
    points = wanted * REGION_WEIGHT + matched * LABEL_WEIGHT + free
    return points - HELD_BACK_WEIGHT if held_back(requirement, cluster) else points


def held_back(requirement: Requirement, cluster: Cluster) -> bool:
    """Whether this run goes elsewhere if it can, because the cluster was lost lately. A preference
    and no must rule: a run that only this cluster takes starts there at once. While the share
    grows, a lot of the run's own decides: the same on every replica, and once in, always in."""
    if cluster.standing is None:
        return False
    draw = sha256(f"back\n{requirement.execution}\n{cluster.name}".encode()).digest()
    return int.from_bytes(draw[:4]) / 2**32 >= cluster.standing.share


def free_cores(requirement: Requirement, cluster: Cluster) -> float:
    """Free cores less a share for each assignment that the agent's numbers don't show yet."""
    if cluster.capacity is None:
        return 0.0
    coming = len(cluster.assigned - {requirement.execution}) - cluster.capacity.held_executions
    return cluster.capacity.free.cpu - max(coming, 0) * max(requirement.largest.cpu, 1.0)
