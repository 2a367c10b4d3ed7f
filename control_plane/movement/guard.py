"""Is it one cluster that is gone, or have we lost sight of the world? Pure.

Asked by the failover's first step with the router's snapshot; answers the reason to hold, or "". A
cluster that was lost long before does not count: it was gone already and says nothing about today.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Sight:
    """One cluster in the router's snapshot. `lost_since_ns` 0 = alive, or lost at an unknown
    time."""

    cluster: str
    alive: bool
    cluster_epoch: int
    lost_since_ns: int = 0


def mass_loss(sights: Sequence[Sight], *, since_ns: int, ttl_ms: int) -> str:
    """More than half of the agents, of three or more, gone within two TTLs of this loss: why to
    hold; else ""."""
    window = 2 * ttl_ms * 1_000_000
    known = [sight for sight in sights if sight.cluster_epoch > 0]
    alive = [sight for sight in known if sight.alive]
    lost = [
        sight
        for sight in known
        if not sight.alive
        and (sight.lost_since_ns == 0 or abs(sight.lost_since_ns - since_ns) <= window)
    ]
    agents = len(alive) + len(lost)
    if agents < 3 or 2 * len(lost) <= agents:
        return ""
    names = ", ".join(sorted(sight.cluster for sight in lost))
    return f"{len(lost)} of {agents} clusters were lost within {2 * ttl_ms / 1000:g} s ({names})"


def returned(sights: Sequence[Sight], *, cluster: str, cluster_epoch: int) -> bool:
    """The cluster is back with a later session than the lost one."""
    return any(
        sight.cluster == cluster and sight.alive and sight.cluster_epoch > cluster_epoch
        for sight in sights
    )
