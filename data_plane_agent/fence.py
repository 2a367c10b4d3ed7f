"""May this agent act? The state of its session, decided from what was heard and one clock; pure.

Called by the session and the watchdog thread with CLOCK_BOOTTIME stamps (it counts a suspended
machine's sleep, too); answers the new standing; hands nothing on. Silence never kills idempotent
work, it only stops claims and commits.
"""

from dataclasses import dataclass, replace
from enum import StrEnum

from whimbrel.spec import Mode

RHO = 0.01
"""Largest rate error of this machine's clock against the router's. Too small: two owners; too
large: jeopardy early."""

LARGEST_LATENESS = 0.1
"""Of the TTL: a watchdog later than that was a pause of the whole process, which the clock shows
by itself."""

PREDECESSOR_NS = 1_000_000_000
"""How long past its last possible deadline an exclusive task of the session before this one may
still run: its kernel timer is as exact as the machine. Shorter: two at once; longer: exclusive runs
stand still after each restart of the agent."""


class State(StrEnum):
    JOINING = "JOINING"
    RECONCILING = "RECONCILING"
    ACTIVE = "ACTIVE"
    JEOPARDY = "JEOPARDY"
    FENCED = "FENCED"
    DRAINING = "DRAINING"

    @property
    def commits(self) -> bool:
        return self in (State.ACTIVE, State.DRAINING)

    @property
    def claims(self) -> bool:
        return self in (State.RECONCILING, State.ACTIVE, State.DRAINING)


@dataclass(frozen=True, slots=True)
class Standing:
    """`deadline_ns` is when the session may be gone at the earliest; `lost_since_ns` is set at the
    first loss only. Before `alone_ns` an exclusive attempt of an earlier session of this cluster
    may still run somewhere; `longest_ns` is the longest TTL of a session of which one may.
    `draining`: for good."""

    state: State = State.JOINING
    ttl_ns: int = 0
    lateness_ns: int = 0
    deadline_ns: int = 0
    lost_since_ns: int = 0
    alone_ns: int = 0
    longest_ns: int = 0
    draining: bool = False

    @property
    def live(self) -> State:
        return State.DRAINING if self.draining else State.ACTIVE


@dataclass(frozen=True, slots=True)
class Welcomed:
    """Answer to a Hello sent at `sent_ns`."""

    sent_ns: int
    ttl_ns: int
    resumed: bool


@dataclass(frozen=True, slots=True)
class Acked:
    """The router confirmed, with etcd, the heartbeat sent at `sent_ns`."""

    sent_ns: int


@dataclass(frozen=True, slots=True)
class Reconciled:
    """Every verdict about what is held has been applied."""


@dataclass(frozen=True, slots=True)
class Tick:
    """Time passed. `late_ns`: how much later than planned the watchdog woke."""

    late_ns: int = 0


@dataclass(frozen=True, slots=True)
class SessionOver:
    """The key has gone: this session is never granted again."""


@dataclass(frozen=True, slots=True)
class Superseded:
    """Another incarnation of this cluster has a session."""


@dataclass(frozen=True, slots=True)
class Drain:
    """The process was asked to stop."""


Heard = Welcomed | Acked | Reconciled | Tick | SessionOver | Superseded | Drain


def deadline(sent_ns: int, *, ttl_ns: int, lateness_ns: int) -> int:
    """t_send(last acknowledged heartbeat) + TTL * (1 - rho) - J."""
    return sent_ns + int(ttl_ns * (1 - RHO)) - lateness_ns


def decide(old: Standing, heard: Heard, *, now_ns: int) -> Standing:
    """The standing after `heard`, at `now_ns`. What was heard late extends nothing: first the
    clock, then the words."""
    expired = _expire(old, now_ns)
    match heard:
        case Tick(late_ns):
            worst = max(expired.lateness_ns, min(late_ns, int(old.ttl_ns * LARGEST_LATENESS)))
            return _expire(_extended(replace(expired, lateness_ns=worst), old), now_ns)
        case Welcomed(sent_ns, ttl_ns, resumed):
            until = deadline(sent_ns, ttl_ns=ttl_ns, lateness_ns=old.lateness_ns)
            joined = resumed and old.state in (State.ACTIVE, State.JEOPARDY, State.DRAINING)
            state = old.live if joined else State.RECONCILING
            # What ran under the session before the last one is over once that one was alone.
            before = old.ttl_ns if 0 < old.alone_ns <= now_ns else old.longest_ns
            longest = max(ttl_ns, before)
            alone = now_ns + int(longest * (1 + RHO)) + PREDECESSOR_NS
            fresh = replace(
                old,
                state=state,
                ttl_ns=ttl_ns,
                deadline_ns=until,
                lost_since_ns=0,
                alone_ns=old.alone_ns if resumed else alone,
                longest_ns=longest,
            )
            return _expire(fresh, now_ns)
        case Acked(sent_ns):
            return _acked(expired, sent_ns, now_ns)
        case Reconciled():
            if expired.state is State.RECONCILING:
                return replace(expired, state=expired.live)
            return expired
        case SessionOver():
            since = expired.lost_since_ns or now_ns
            return replace(expired, state=State.JOINING, deadline_ns=0, lost_since_ns=since)
        case Superseded():
            since = expired.lost_since_ns or now_ns
            return replace(expired, state=State.FENCED, deadline_ns=0, lost_since_ns=since)
        case Drain():
            drained = replace(expired, draining=True)
            return replace(drained, state=drained.live) if expired.state.commits else drained


def may_start(standing: Standing, mode: Mode, *, now_ns: int, autonomy_ns: int = 0) -> bool:
    """A task of a run that was claimed. Idempotent ones go on without a session, for `autonomy_ns`
    if that is not 0."""
    match mode:
        case Mode.IDEMPOTENT:
            lost = now_ns - standing.lost_since_ns if standing.lost_since_ns else 0
            return standing.state is not State.FENCED and not 0 < autonomy_ns <= lost
        case Mode.PINNED:
            return standing.state.commits
        case Mode.EXCLUSIVE:
            return standing.state.commits and now_ns >= standing.alone_ns


def _acked(standing: Standing, sent_ns: int, now_ns: int) -> Standing:
    if standing.state in (State.JOINING, State.FENCED):
        return standing
    until = deadline(sent_ns, ttl_ns=standing.ttl_ns, lateness_ns=standing.lateness_ns)
    if until <= standing.deadline_ns or until <= now_ns:
        return standing
    back = standing.live if standing.state is State.JEOPARDY else standing.state
    return replace(standing, state=back, deadline_ns=until, lost_since_ns=0)


def _extended(standing: Standing, old: Standing) -> Standing:
    """A watchdog seen to be later than thought moves the deadline nearer by as much."""
    nearer = standing.lateness_ns - old.lateness_ns
    return replace(standing, deadline_ns=standing.deadline_ns - nearer) if nearer else standing


def _expire(standing: Standing, now_ns: int) -> Standing:
    """Past the deadline the key may have gone. An unfinished reconciliation starts anew with a
    Hello."""
    if now_ns < standing.deadline_ns:
        return standing
    match standing.state:
        case State.ACTIVE | State.DRAINING:
            lost = standing.lost_since_ns or now_ns
            return replace(standing, state=State.JEOPARDY, lost_since_ns=lost)
        case State.RECONCILING:
            lost = standing.lost_since_ns or now_ns
            return replace(standing, state=State.JOINING, lost_since_ns=lost)
        case _:
            return standing
