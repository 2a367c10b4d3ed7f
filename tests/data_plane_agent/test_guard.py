"""What launchers are told of the session: until when exclusive work may run."""

from pathlib import Path

import pytest
from whimbrel.errors import Refused, Unreachable
from whimbrel.spec import Want
from whimbrel.wire.v1 import ledger_pb2, placement_pb2

from data_plane_agent import codec
from data_plane_agent import messages as m
from data_plane_agent.fence import (
    Acked,
    Drain,
    Reconciled,
    SessionOver,
    State,
    Superseded,
    Welcomed,
    deadline,
)
from data_plane_agent.guard import Guard
from data_plane_agent.longest_ttl import LongestTtl

S = 1_000_000_000
TTL = 10 * S


class At:
    def __init__(self) -> None:
        self.now = S
        self.guard = Guard(clock=lambda: self.now)
        self.guard.hear(Welcomed(S, TTL, resumed=False))


def test_exclusive_work_runs_until_the_deadline_of_a_session_that_is_live() -> None:
    at = At()
    assert at.guard.until_ns() == 0  # nothing is claimed yet
    at.guard.hear(Reconciled())
    assert at.guard.until_ns() == deadline(S, ttl_ns=TTL, lateness_ns=0)
    at.now = 5 * S
    at.guard.hear(Acked(4 * S))
    assert at.guard.until_ns() == deadline(4 * S, ttl_ns=TTL, lateness_ns=0)
    at.guard.hear(Drain())
    assert at.guard.until_ns() == deadline(4 * S, ttl_ns=TTL, lateness_ns=0)
    at.now = 15 * S  # nobody said so: the clock does
    assert at.guard.until_ns() == 0


@pytest.mark.parametrize("end", [SessionOver(), Superseded()])
def test_nothing_exclusive_runs_on_after_the_session(end: SessionOver | Superseded) -> None:
    at = At()
    at.guard.hear(Reconciled())
    at.guard.hear(end)
    assert at.guard.until_ns() == 0


@pytest.mark.parametrize(
    ("said", "want"),
    [
        (placement_pb2.QUIESCE, Want.QUIESCE),
        (placement_pb2.RUN, Want.RUN),
        (placement_pb2.WANT_UNSPECIFIED, Want.RUN),
    ],
)
def test_a_claim_says_what_is_wanted(said: placement_pb2.Want.ValueType, want: Want) -> None:
    page = ledger_pb2.ClaimReply(execution="p/d/x", epoch=1, claimed=True, want=said)
    [claimed] = codec.claims([page])
    assert isinstance(claimed, m.Claimed)
    assert claimed.want is want


def test_no_session_begins_whose_length_is_not_on_disk(tmp_path: Path) -> None:
    file = tmp_path / "longest-ttl"
    longest = LongestTtl(file)
    assert longest.read() == 0
    guard = Guard(clock=lambda: S, longest_ns=longest.read(), remember=longest.write)
    guard.hear(Welcomed(S, TTL, resumed=False))
    assert longest.read() == TTL
    # The next agent's sessions are shorter: it waits as long as the last one's.
    after = Guard(clock=lambda: S, longest_ns=longest.read(), remember=longest.write)
    after.hear(Welcomed(S, S, resumed=False))
    assert after.standing.alone_ns > S + TTL
    assert longest.read() == TTL
    full = Guard(clock=lambda: S, remember=LongestTtl(tmp_path / "no" / "folder").write)
    with pytest.raises(Unreachable, match="can't be written"):
        full.hear(Welcomed(S, TTL, resumed=False))
    assert full.state is State.JOINING
    file.write_text("?")
    with pytest.raises(Refused, match="can't be read"):
        longest.read()
