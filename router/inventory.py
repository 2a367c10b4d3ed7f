"""etcd's keys as one immutable snapshot of clusters, kept up to date by a watch.

Fed by `Etcd.follow`; read by placement, sessions and the lookout. Tells its listeners what
changed: an assignment, a session, or everything (the view was lost and read anew).
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from whimbrel.errors import Unreachable
from whimbrel.service.held import HeldDigest
from whimbrel.spec import Assignment

from router import clusters as keys
from router.clusters import Capacity, Cluster, Registration, Session
from router.etcd import Change, Cut, Deleted, Entry, Etcd, Listed, Put
from router.returns import Return, standing

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Assigned:
    assignment: Assignment


@dataclass(frozen=True, slots=True)
class Unassigned:
    """A key was deleted, or went to another cluster: `assignment` is what stood there."""

    assignment: Assignment


@dataclass(frozen=True, slots=True)
class SessionChanged:
    cluster: str


@dataclass(frozen=True, slots=True)
class Reread:
    """Everything may have changed. What is missing may have been lost with etcd: nobody may
    conclude from it that something was taken away."""


News = Assigned | Unassigned | SessionChanged | Reread


class Inventory:
    def __init__(self) -> None:
        self.current = False
        self.outages = 0
        self.registrations: dict[str, Registration] = {}
        self.sessions: dict[str, Session] = {}
        self.capacities: dict[str, Capacity] = {}
        self.assignments: dict[str, Assignment] = {}
        self.returns: dict[str, Return] = {}
        self._by_cluster: dict[str, dict[str, Assignment]] = {}
        self._held: dict[str, HeldDigest] = {}
        self._snapshot: Mapping[str, Cluster] | None = None
        self._listeners: list[Callable[[News], None]] = []

    def listen(self, listener: Callable[[News], None]) -> None:
        self._listeners.append(listener)

    async def run(self, etcd: Etcd) -> None:
        async for change in etcd.follow("/"):
            for news in self.apply(change):
                for listener in self._listeners:
                    listener(news)

    def apply(self, change: Change) -> list[News]:
        self._snapshot = None
        match change:
            case Cut():
                self.current = False
                self.outages += 1
                return []
            case Listed(entries):
                for kept in (self.registrations, self.sessions, self.capacities, self.returns):
                    kept.clear()
                self.assignments.clear()
                self._by_cluster.clear()
                self._held.clear()
                for entry in entries:
                    self._put(entry)
                self.current = True
                return [Reread()]
            case Put(entry):
                return self._put(entry)
            case Deleted(key):
                return self._deleted(key)

    def assigned_to(self, cluster: str) -> list[Assignment]:
        return list(self._by_cluster.get(cluster, {}).values())

    def held(self, cluster: str) -> str:
        """The digest of what is assigned to it."""
        return str(self._held.setdefault(cluster, HeldDigest()))

    def require(self) -> None:
        """Raises Unreachable while etcd can't be read: an old view must not decide anything."""
        if not self.current:
            raise Unreachable("the router can't read etcd at the moment; try again later")

    def snapshot(self) -> Mapping[str, Cluster]:
        if self._snapshot is None:
            self._snapshot = {
                name: Cluster(
                    registration,
                    self.sessions.get(name),
                    self.capacities.get(name),
                    frozenset(self._by_cluster.get(name, ())),
                )
                for name, registration in self.registrations.items()
            }
        return self._snapshot

    def judged(self, suspected: Callable[[str], bool], *, now_ns: int) -> Mapping[str, Cluster]:
        """The snapshot with the membership's opinion in it, and who was lost lately."""
        clusters = dict(self.snapshot())
        for name, cluster in clusters.items():
            if suspected(name):
                clusters[name] = replace(cluster, suspected=True)
            elif (record := self.returns.get(name)) is not None:
                clusters[name] = replace(cluster, standing=standing(record, now_ns=now_ns))
        return clusters

    def _put(self, entry: Entry) -> list[News]:
        prefix, _, name = entry.key[1:].partition("/")
        try:
            match f"/{prefix}/":
                case keys.REGISTRATIONS:
                    self.registrations[name] = keys.registration_from(entry.value)
                case keys.SESSIONS:
                    self.sessions[name] = keys.session_from(entry.value)
                    return [SessionChanged(name)]
                case keys.CAPACITY:
                    self.capacities[name] = keys.capacity_from(entry.value)
                case keys.RETURNS:
                    self.returns[name] = keys.return_from(entry.value)
                case keys.ASSIGNMENTS:
                    return self._assigned(keys.assignment_from(entry.value))
                case _:
                    pass  # somebody else's key
        except (ValueError, KeyError, TypeError) as cause:
            log.error("etcd's %s can't be read, so it counts as absent: %s", entry.key, cause)
            return self._deleted(entry.key)
        return []

    def _assigned(self, assignment: Assignment) -> list[News]:
        before = self._forget(assignment.execution)
        self.assignments[assignment.execution] = assignment
        own = self._by_cluster.setdefault(assignment.cluster, {})
        own[assignment.execution] = assignment
        self._flip(assignment)
        news: list[News] = [Assigned(assignment)]
        if before is not None and before.cluster != assignment.cluster:
            news.append(Unassigned(before))
        return news

    def _forget(self, execution: str) -> Assignment | None:
        before = self.assignments.pop(execution, None)
        if before is not None:
            self._by_cluster.get(before.cluster, {}).pop(execution, None)
            self._flip(before)
        return before

    def _flip(self, one: Assignment) -> None:
        self._held.setdefault(one.cluster, HeldDigest()).flip(one.execution, one.epoch)

    def _deleted(self, key: str) -> list[News]:
        prefix, _, name = key[1:].partition("/")
        match f"/{prefix}/":
            case keys.REGISTRATIONS:
                self.registrations.pop(name, None)
            case keys.SESSIONS:
                self.sessions.pop(name, None)
                return [SessionChanged(name)]
            case keys.CAPACITY:
                self.capacities.pop(name, None)
            case keys.RETURNS:
                self.returns.pop(name, None)
            case keys.ASSIGNMENTS:
                before = self._forget(name)
                return [] if before is None else [Unassigned(before)]
            case _:
                pass
        return []
