"""One step of the world: what happened, the state afterwards, and what it broke, if anything.

Yielded by every action file, walked by `explore.py`, told by `report.py`.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

from tests.model.setup import NAMES, Setup
from tests.model.state import Pod, State, changed

AT = {name: at for at, name in enumerate(NAMES)}


class Step(NamedTuple):
    """`fault`: not to be relied on when we ask whether a run can still finish. `after` None: the
    step is beyond the scenario's bounds. `breach` names an invariant and says what happened."""

    what: tuple[Any, ...]
    after: State | None
    fault: bool = False
    breach: str = ""


Steps = Iterator[Step]
BEYOND = Step(("beyond the bounds",), None)


def left(s: State, fault: str) -> bool:
    return s.faults[AT[fault]] > 0


def spent(s: State, fault: str) -> State:
    at = AT[fault]
    return s._replace(faults=changed(s.faults, at, s.faults[at] - 1))


def stopped(pods: tuple[Pod, ...], *, cluster: int, run: int, upto: int) -> tuple[Pod, ...]:
    """Without a cluster's attempts of a run up to an epoch."""
    return tuple(p for p in pods if p.cluster != cluster or p.run != run or p.epoch > upto)


def many_gone(setup: Setup, s: State) -> bool:
    """More than half of the clusters, of three or more, have no session."""
    total = len(s.live)
    return total >= 3 and 2 * sum(1 for session in s.live if not session) > total
