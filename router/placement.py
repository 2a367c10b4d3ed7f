"""Placement: requirements and one snapshot in, a cluster and a verdict for every cluster out.

Called by the `Place` door; answers what the control plane stores whole. Pure: no clock, no I/O.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256

from router import rules
from router.clusters import Cluster, Requirement

NO_CLUSTER_REGISTERED = "no_cluster_registered"
NO_CLUSTER_ALLOWED = "no_cluster_allowed"
NO_CLUSTER_ALIVE = "no_cluster_alive"
NO_CLUSTER_OFFERS = "no_cluster_offers"
NO_CLUSTER_WELL = "no_cluster_well"
NO_CAPACITY = "no_capacity"


@dataclass(frozen=True, slots=True)
class Verdict:
    """`rule` and `why` say what refused; `score` counts among the accepted, the highest wins."""

    cluster: str
    region: str
    accepted: bool
    rule: str = ""
    why: str = ""
    score: float = 0.0


@dataclass(frozen=True, slots=True)
class Placement:
    """`cluster` "" = nowhere, and then `reason` says why. One verdict for every cluster known."""

    execution: str
    cluster: str
    region: str
    reason: str
    verdicts: tuple[Verdict, ...]


def place(requirement: Requirement, clusters: Mapping[str, Cluster]) -> Placement:
    verdicts = tuple(judge(requirement, clusters[name]) for name in sorted(clusters))
    accepted = [verdict for verdict in verdicts if verdict.accepted]
    if not accepted:
        return Placement(
            requirement.execution, "", "", why_nowhere(requirement, clusters), verdicts
        )
    best = max(accepted, key=lambda verdict: (verdict.score, _lot(requirement, verdict.cluster)))
    return Placement(requirement.execution, best.cluster, best.region, "", verdicts)


def place_all(
    requirements: Sequence[Requirement], clusters: Mapping[str, Cluster]
) -> list[Placement]:
    """In order; each counts those before it, so that one batch can't fill a cluster twice."""
    now = dict(clusters)
    placements: list[Placement] = []
    for requirement in requirements:
        placement = place(requirement, now)
        if placement.cluster:
            chosen = now[placement.cluster]
            taken = chosen.assigned | {requirement.execution}
            now[placement.cluster] = replace(chosen, assigned=taken)
        placements.append(placement)
    return placements


def judge(requirement: Requirement, cluster: Cluster) -> Verdict:
    region = cluster.registration.region
    if refused := rules.refusal(requirement, cluster):
        return Verdict(cluster.name, region, False, refused.rule, refused.why)
    points = rules.score(requirement, cluster)
    free = rules.free_cores(requirement, cluster)
    why = f"{free:g} cores free"
    if cluster.standing is not None:
        why = f"{cluster.standing.why}; {why}"
    return Verdict(cluster.name, region, True, "", why, points)


def why_nowhere(requirement: Requirement, clusters: Mapping[str, Cluster]) -> str:
    """The reason that helps: what must change first for this run to go anywhere."""
    if not clusters:
        return NO_CLUSTER_REGISTERED
    permitted = [one for one in clusters.values() if rules.permitted(requirement, one)]
    if not permitted:
        return NO_CLUSTER_ALLOWED
    alive = [one for one in permitted if one.alive]
    if not alive:
        return NO_CLUSTER_ALIVE
    offering = [one for one in alive if rules.offers(requirement, one)]
    if not offering:
        return NO_CLUSTER_OFFERS
    available = [one for one in offering if rules.available(requirement, one)]
    if not available:
        return NO_CLUSTER_ALLOWED
    if all(rules.compute(requirement, one) for one in available):
        return NO_CLUSTER_WELL
    return NO_CAPACITY


def _lot(requirement: Requirement, cluster: str) -> str:
    """Equal clusters share the executions among them, the same way on every replica."""
    return sha256(f"{requirement.execution}\n{cluster}".encode()).hexdigest()
