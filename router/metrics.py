"""What this replica counts for Prometheus, under `whimbrel_router_*`.

Counted by the doors, the assignments and the lookout; served by the HTTP door's /metrics once
`__main__.py` has made one on the process's registry.
"""

from collections.abc import Callable, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from router.placement import Placement

PLACE_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
"""Seconds. A call may carry thousands of requirements; one alone takes less than a millisecond."""


class Metrics:
    """Without a registry it counts for nobody."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self._registry = registry
        self._losses = Counter(
            "whimbrel_router_losses_judged",
            "Sessions judged lost by this replica; every replica judges for itself",
            registry=registry,
        )
        self._places = Counter(
            "whimbrel_router_places",
            "Requirements placed, by outcome: placed, or the reason for nowhere",
            ["outcome"],
            registry=registry,
        )
        self._writes = Counter(
            "whimbrel_router_assignment_writes",
            "Assignment keys asked to be put or deleted, by outcome: written or refused",
            ["outcome"],
            registry=registry,
        )
        self._place_seconds = Histogram(
            "whimbrel_router_place_seconds",
            "Time of one Place call",
            buckets=PLACE_BUCKETS,
            registry=registry,
        )

    def observe(
        self,
        *,
        sessions: Callable[[], int],
        suspected: Callable[[], int],
        returning: Callable[[], int],
    ) -> None:
        """Read at every scrape."""
        for name, what, count in (
            ("sessions", "Agents' sessions, at whatever replica", sessions),
            ("suspected_clusters", "Clusters judged lost that are not back", suspected),
            ("returning_clusters", "Clusters lost lately, away or back", returning),
        ):
            gauge = Gauge(f"whimbrel_router_{name}", what, registry=self._registry)
            gauge.set_function(count)

    def lost(self) -> None:
        self._losses.inc()

    def placed(self, placements: Sequence[Placement], *, seconds: float) -> None:
        self._place_seconds.observe(seconds)
        for placement in placements:
            self._places.labels(placement.reason or "placed").inc()

    def wrote(self, *, written: bool) -> None:
        self._writes.labels("written" if written else "refused").inc()
