"""Places that were answered and have no assignment key yet, so that the next answer counts them.

Used by the `Place` door only. In this replica's memory: a second replica does not see them, and
whoever asks without assigning (a dry run) takes room for seconds only.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from router.clusters import Cluster
from router.inventory import Assigned, News
from router.placement import Placement

RESERVED_SECONDS = 2.0
"""Between a Place and the key of its Assign. Too short counts a burst of launches on a slow SQL
twice, too long keeps room for what was only asked."""


@dataclass(frozen=True, slots=True)
class Reserved:
    cluster: str
    until: float


class Reservations:
    """`clock` counts seconds and never goes back."""

    def __init__(self, *, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._reserved: dict[str, Reserved] = {}

    def counted(self, clusters: Mapping[str, Cluster]) -> Mapping[str, Cluster]:
        """The same clusters with what is reserved among the assigned."""
        now = self._clock()
        # Oldest first, for each is put at the end: what is over stands at the front.
        while self._reserved:
            execution, oldest = next(iter(self._reserved.items()))
            if oldest.until > now:
                break
            del self._reserved[execution]
        coming: dict[str, set[str]] = {}
        for execution, one in self._reserved.items():
            coming.setdefault(one.cluster, set()).add(execution)
        return {
            name: replace(cluster, assigned=cluster.assigned | coming[name])
            if name in coming
            else cluster
            for name, cluster in clusters.items()
        }

    def reserve(self, placements: Iterable[Placement]) -> None:
        """The newest answer for an execution replaces its older one."""
        until = self._clock() + RESERVED_SECONDS
        for placement in placements:
            self._reserved.pop(placement.execution, None)
            if placement.cluster:
                self._reserved[placement.execution] = Reserved(placement.cluster, until)

    def on_news(self, news: News) -> None:
        if isinstance(news, Assigned):
            self._reserved.pop(news.assignment.execution, None)
