"""The session's standing as a table: what was heard, when, and what the agent may do then."""

import pytest
from whimbrel.spec import Mode

from data_plane_agent.fence import (
    Acked,
    Drain,
    Heard,
    Reconciled,
    SessionOver,
    Standing,
    State,
    Superseded,
    Tick,
    Welcomed,
    deadline,
    decide,
    may_start,
)

S = 1_000_000_000
TTL = 10 * S
NEW = Welcomed(0, TTL, resumed=False)
AGAIN = Welcomed(8 * S, TTL, resumed=True)

Story = list[tuple[float, Heard]]


def tell(story: Story) -> list[State]:
    standing = Standing()
    states: list[State] = []
    for at, heard in story:
        standing = decide(standing, heard, now_ns=int(at * S))
        states.append(standing.state)
    return states


@pytest.mark.parametrize(
    ("story", "end"),
    [
        ([], []),
        ([(0, NEW)], [State.RECONCILING]),
        ([(0, NEW), (1, Reconciled())], [State.RECONCILING, State.ACTIVE]),
        ([(0, NEW), (1, Reconciled()), (9.8, Tick())], [State.ACTIVE]),
        # 10 s less 1 %: the margin is what keeps two owners apart.
        ([(0, NEW), (1, Reconciled()), (9.95, Tick())], [State.JEOPARDY]),
        # The stamp of sending counts, not the one of hearing.
        ([(0, NEW), (1, Reconciled()), (9, Acked(2 * S)), (11.8, Tick())], [State.ACTIVE]),
        ([(0, NEW), (1, Reconciled()), (9, Acked(2 * S)), (11.95, Tick())], [State.JEOPARDY]),
        # A pause past the deadline: an old acknowledgement left in the socket extends nothing.
        ([(0, NEW), (1, Reconciled()), (30, Acked(2 * S))], [State.JEOPARDY]),
        ([(0, NEW), (1, Reconciled()), (30, Tick()), (31, Acked(30 * S))], [State.ACTIVE]),
        # A Welcome that comes after its own TTL is worth nothing.
        ([(30, NEW)], [State.JOINING]),
        # Reconciling took too long: Hello again.
        ([(0, NEW), (11, Reconciled())], [State.JOINING]),
        ([(0, NEW), (1, Reconciled()), (2, SessionOver())], [State.JOINING]),
        ([(0, NEW), (1, Reconciled()), (2, SessionOver()), (3, Acked(2 * S))], [State.JOINING]),
        ([(0, NEW), (1, Reconciled()), (9, AGAIN), (17.8, Tick())], [State.ACTIVE]),
        ([(0, NEW), (1, Reconciled()), (12, Tick()), (12, AGAIN)], [State.JEOPARDY, State.ACTIVE]),
        ([(0, NEW), (1, Reconciled()), (2, Superseded()), (3, Acked(2 * S))], [State.FENCED]),
        ([(0, NEW), (1, Reconciled()), (2, Drain())], [State.DRAINING]),
        ([(0, NEW), (1, Reconciled()), (2, Drain()), (11, Tick())], [State.JEOPARDY]),
        # Draining is for good, whatever the session goes through.
        ([(0, NEW), (1, Reconciled()), (2, Drain()), (11, Acked(9 * S))], [State.DRAINING]),
        ([(0, NEW), (1, Reconciled()), (2, Drain()), (12, Tick()), (12, AGAIN)], [State.DRAINING]),
        (
            [(0, NEW), (1, Drain()), (2, Reconciled()), (3, SessionOver()), (3, NEW)],
            [State.RECONCILING, State.DRAINING, State.JOINING, State.RECONCILING],
        ),
        (
            [(0, NEW), (1, SessionOver()), (2, Drain()), (3, NEW), (4, Reconciled())],
            [State.DRAINING],
        ),
    ],
)
def test_stories(story: Story, end: list[State]) -> None:
    assert tell(story)[len(story) - len(end) :] == end


def test_a_late_watchdog_moves_the_deadline_nearer_and_a_pause_does_not_for_ever() -> None:
    standing = decide(Standing(), NEW, now_ns=0)
    late = decide(standing, Tick(late_ns=S // 10), now_ns=S)
    assert late.deadline_ns == standing.deadline_ns - S // 10
    paused = decide(standing, Tick(late_ns=60 * S), now_ns=S)
    assert paused.deadline_ns == standing.deadline_ns - TTL // 10


def test_lost_since_is_the_first_loss() -> None:
    standing = Standing()
    for at, heard in ((0, NEW), (1, Reconciled()), (12, Tick()), (20, Tick()), (25, SessionOver())):
        standing = decide(standing, heard, now_ns=at * S)
    assert standing.lost_since_ns == 12 * S


@pytest.mark.parametrize("end", [SessionOver(), Superseded()])
def test_a_late_acknowledgement_changes_nothing_of_a_session_that_is_over(end: Heard) -> None:
    standing = Standing()
    for at, heard in ((0, NEW), (1, Reconciled()), (2, end)):
        standing = decide(standing, heard, now_ns=at * S)
    assert decide(standing, Acked(2 * S), now_ns=3 * S) == standing


def test_what_each_state_may_do() -> None:
    assert [s for s in State if s.commits] == [State.ACTIVE, State.DRAINING]
    assert [s for s in State if s.claims] == [State.RECONCILING, State.ACTIVE, State.DRAINING]


def test_deadline() -> None:
    assert deadline(5 * S, ttl_ns=TTL, lateness_ns=S) == int(5 * S + 9.9 * S - S)


def start(standing: Standing, mode: Mode, at: float, **kwargs: int) -> bool:
    return may_start(standing, mode, now_ns=int(at * S), **kwargs)


@pytest.mark.parametrize("state", State)
def test_what_may_start_in_each_state(state: State) -> None:
    standing = Standing(state)
    assert start(standing, Mode.IDEMPOTENT, 1) == (state is not State.FENCED)
    live = state in (State.ACTIVE, State.DRAINING)
    assert start(standing, Mode.PINNED, 1) == live
    assert start(standing, Mode.EXCLUSIVE, 1) == live


def test_a_new_session_waits_for_the_exclusive_work_of_its_predecessor() -> None:
    first = decide(Standing(), NEW, now_ns=S)
    assert first.alone_ns == S + int(TTL * 1.01) + S
    live = decide(first, Reconciled(), now_ns=2 * S)
    assert not start(live, Mode.EXCLUSIVE, 12.0)
    assert start(live, Mode.PINNED, 2)
    assert start(live, Mode.EXCLUSIVE, 12.2)
    resumed = decide(live, AGAIN, now_ns=9 * S)
    assert resumed.alone_ns == first.alone_ns
    # The one before may have had a longer TTL.
    shorter = decide(resumed, Welcomed(9 * S, 2 * S, resumed=False), now_ns=10 * S)
    assert shorter.alone_ns == 10 * S + int(TTL * 1.01) + S
    # Nor is it forgotten by one more, before the first of the two was alone, or by a restart.
    again = decide(shorter, Welcomed(11 * S, 2 * S, resumed=False), now_ns=12 * S)
    assert again.alone_ns == 12 * S + int(TTL * 1.01) + S
    after = decide(Standing(longest_ns=TTL), Welcomed(0, 2 * S, resumed=False), now_ns=S)
    assert after.alone_ns == S + int(TTL * 1.01) + S
    # Once alone under the shorter one, nothing of the longer one runs any more.
    later = decide(after, Welcomed(90 * S, 2 * S, resumed=False), now_ns=90 * S)
    assert later.longest_ns == 2 * S


def test_autonomy_ends() -> None:
    lost = Standing(State.JEOPARDY, lost_since_ns=10 * S)
    assert start(lost, Mode.IDEMPOTENT, 100_000)
    assert start(lost, Mode.IDEMPOTENT, 14.9, autonomy_ns=5 * S)
    assert not start(lost, Mode.IDEMPOTENT, 15, autonomy_ns=5 * S)
    assert start(Standing(State.ACTIVE), Mode.IDEMPOTENT, 100, autonomy_ns=5 * S)
