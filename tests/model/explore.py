"""Breadth-first over every reachable state, exact: no hashing of states to a few bits, no sampling.

Called by `__main__.py` and the tests with a Setup; answers what was found and, for a breach, the
shortest way there. Afterwards it asks of every state: is there still a way to the end?
"""

import time
from array import array
from collections.abc import Iterable
from dataclasses import dataclass

from tests.model import (
    claims,
    dispatch,
    environment,
    etcd,
    migration,
    outbox,
    sessions,
    takeover,
    work,
)
from tests.model.invariants import of_state
from tests.model.setup import Setup, initial
from tests.model.state import TERMINAL, State
from tests.model.step import Step

ACTIONS = (
    sessions.agent_steps,
    claims.claim_steps,
    work.work_steps,
    outbox.outbox_steps,
    sessions.lease_steps,
    takeover.suspect_steps,
    environment.world_steps,
    environment.sweep_steps,
    etcd.late_steps,
    migration.asked_steps,
    dispatch.dispatch_steps,
    takeover.takeover_steps,
    migration.migration_steps,
)


@dataclass(frozen=True)
class Found:
    """`complete`: everything within the bounds was seen. `breach` "" = none; `path` the indices of
    the steps that lead to it; `stuck` how many states can't reach the end any more."""

    setup: Setup
    states: int
    transitions: int
    depth: int
    seconds: float
    complete: bool
    breach: str = ""
    path: tuple[int, ...] = ()
    stuck: int = 0


def steps(setup: Setup, s: State) -> list[Step]:
    found = [step for action in ACTIONS for step in action(setup, s)]
    return [one._replace(after=canonical(setup, one.after)) if one.after else one for one in found]


def canonical(setup: Setup, s: State) -> State:
    """The same state with smaller numbers, where only their differences are ever looked at: event
    numbers against their cursor, and cursors that nobody can name any more."""
    if not any(any(own) for own in s.cursors) or setup.off & {"numbers_anew", "cursor_own"}:
        return s
    agents, flights = list(s.agents), list(s.flights)
    cursors = [list(own) for own in s.cursors]
    for cluster, own in enumerate(cursors, 1):
        for at, cursor in enumerate(own):
            if not cursor:
                continue
            session = at + 1
            mine = [
                i
                for i, agent in enumerate(agents)
                if setup.clusters[i] == cluster
                and agent.session == session
                and agent.state not in ("DOWN", "GONE", "RECONCILING")
            ]
            sent = [
                i for i, f in enumerate(flights) if (f.cluster, f.session) == (cluster, session)
            ]
            least = [agents[i].first - 1 for i in mine] + [flights[i].number - 1 for i in sent]
            less = min([cursor, *least])
            for i in mine:
                agents[i] = agents[i]._replace(first=agents[i].first - less)
            for i in sent:
                flights[i] = flights[i]._replace(number=flights[i].number - less)
            own[at] = cursor - less
    return s._replace(
        agents=tuple(agents),
        flights=tuple(sorted(flights)),
        cursors=tuple(tuple(own) for own in cursors),
    )


def at_end(s: State) -> bool:
    return not s.pods and all(row.phase in TERMINAL for row in s.rows)


class Names:
    """State -> a short key, without loss: each field is numbered, and a state is its numbers."""

    def __init__(self) -> None:
        self._numbers: list[dict[object, int]] = [{} for _ in State._fields]

    def key(self, s: State) -> bytes:
        numbers = [
            of.setdefault(field, len(of)) for of, field in zip(self._numbers, s, strict=True)
        ]
        return array("I", numbers).tobytes()


class Search:
    def __init__(self, setup: Setup, *, limit: int) -> None:
        self.setup = setup
        self.limit = limit
        self.names = Names()
        self.parent, self.taken = array("I", [0]), array("H", [0])
        self.source, self.target = array("I"), array("I")
        self.good = bytearray(1)
        self.transitions = self.depth = 0
        self.complete = True
        self.begun = time.monotonic()

    def run(self) -> Found:
        first = initial(self.setup)
        index = {self.names.key(first): 0}
        frontier = [(0, first)]
        while frontier and self.complete:
            following: list[tuple[int, State]] = []
            for at, state in frontier:
                for taken, step in enumerate(steps(self.setup, state)):
                    self.transitions += 1
                    if step.after is None:
                        self.good[at] = 1
                        continue
                    key = self.names.key(step.after)
                    to = index.get(key)
                    new = to is None
                    if to is None:
                        if len(index) >= self.limit:
                            self.good[at] = 1
                            self.complete = False
                            continue
                        to = index[key] = len(index)
                        self.parent.append(at)
                        self.taken.append(taken)
                        self.good.append(at_end(step.after))
                        following.append((to, step.after))
                    breach = step.breach or (of_state(self.setup, step.after) if new else "")
                    if breach:
                        return self.found(len(index), breach, (*self.path(at), taken))
                    if not step.fault and self.setup.live:
                        self.source.append(at)
                        self.target.append(to)
            frontier = following
            self.depth += bool(frontier)
        for at, _ in frontier:
            self.good[at] = 1
        return self.ending(len(index))

    def ending(self, states: int) -> Found:
        if not self.setup.live:
            return self.found(states)
        stuck = self.stuck()
        if not stuck:
            return self.found(states)
        breach = "I8 from here no run of events without faults leads to the end"
        return self.found(states, breach, self.path(stuck[0]), stuck=len(stuck))

    def stuck(self) -> list[int]:
        """States from which no path without faults leads to the end (or beyond the bounds)."""
        good, source, target = self.good, self.source, self.target
        changed = True
        while changed:
            changed = False
            for at in range(len(source) - 1, -1, -1):
                if good[target[at]] and not good[source[at]]:
                    good[source[at]] = 1
                    changed = True
        return [at for at, fine in enumerate(good) if not fine]

    def path(self, at: int) -> tuple[int, ...]:
        back: list[int] = []
        while at:
            back.append(self.taken[at])
            at = self.parent[at]
        return tuple(reversed(back))

    def found(
        self, states: int, breach: str = "", path: Iterable[int] = (), *, stuck: int = 0
    ) -> Found:
        return Found(
            setup=self.setup,
            states=states,
            transitions=self.transitions,
            depth=self.depth + bool(breach and not stuck),
            seconds=time.monotonic() - self.begun,
            complete=self.complete and (not breach or bool(stuck)),
            breach=breach,
            path=tuple(path),
            stuck=stuck,
        )


def explore(setup: Setup, *, limit: int = 1_000_000) -> Found:
    return Search(setup, limit=limit).run()
