"""The heartbeat's own threads: what the loop does, or does not do, is nothing to them."""

import threading
from collections.abc import Iterator

import pytest
from whimbrel.spec import Resources

from data_plane_agent import messages as m
from data_plane_agent.fence import Reconciled, State, Welcomed
from data_plane_agent.guard import Guard
from data_plane_agent.heartbeat import Heartbeat
from data_plane_agent.launcher import Capacity

LOAD = m.Load(Capacity(Resources(), Resources(), 0, 0), 0, 0)
TTL_NS = 200_000_000


class Deaf:
    """Heartbeats go out and no answer ever comes."""

    def __init__(self) -> None:
        self.closed = threading.Event()

    def send(self, beat: m.Beat) -> None:
        """Into the void."""

    def acks(self) -> Iterator[m.BeatAck]:
        self.closed.wait()
        return iter(())

    def close(self) -> None:
        self.closed.set()


@pytest.mark.fault(4)
def test_a_blocked_loop_does_not_keep_the_deadline_from_being_noticed() -> None:
    """There is no event loop here at all: this thread only waits for the other one's word."""
    guard = Guard()
    noticed = threading.Event()
    guard.on_change(lambda old, new: noticed.set() if new is State.JEOPARDY else None)
    heart = Heartbeat(
        cluster="c", addresses=["r"], connect=lambda address: Deaf(), guard=guard,
        vitals=lambda: (LOAD, 0, False, ""), on_over=lambda: None,
    )  # fmt: skip
    guard.hear(Welcomed(guard.now(), TTL_NS, False))
    guard.hear(Reconciled())
    heart.begin(m.Welcome("s", 1, TTL_NS / 1e9, TTL_NS / 5e9, False), address="r")
    try:
        assert noticed.wait(timeout=30)
    finally:
        heart.end()
