"""Suspicion: lost only when the router could have heard, and then for as long as nobody comes."""

from hypothesis import given
from hypothesis import strategies as st

from router.membership import Membership, Observation, observe

TTL = 2.0
BOTH = {"east": 3, "west": 5}


class Story:
    """Observations a tenth of a second apart, one method a happening."""

    def __init__(self) -> None:
        self.now = 100.0
        self.outages = 0
        self.members = Membership(ttl=TTL, stall=TTL / 2)

    def goes_on(
        self, seconds: float, sessions: dict[str, int] | None = None, *, hearing: bool = True
    ) -> "Story":
        there = BOTH if sessions is None else sessions
        for _ in range(round(seconds * 10)):
            self.now = round(self.now + 0.1, 3)
            self.members = observe(
                self.members,
                Observation(
                    self.now, int(self.now * 1e9), hearing, self.outages, there, frozenset(BOTH)
                ),
            )
        return self

    @property
    def lost(self) -> dict[str, int]:
        return {loss.cluster: loss.cluster_epoch for loss in self.members.losses}


def test_a_session_that_ends_in_quiet_times_is_lost_at_once() -> None:
    story = Story().goes_on(5).goes_on(0.1, {"west": 5})
    assert story.lost == {"east": 3}
    assert story.members.losses[0].since_ns == int(story.now * 1e9)


def test_since_is_the_first_moment() -> None:
    story = Story().goes_on(5).goes_on(0.1, {"west": 5})
    first = story.members.losses[0].since_ns
    assert story.goes_on(9, {"west": 5}).members.losses[0].since_ns == first


def test_nobody_is_lost_before_two_ttls_after_the_start() -> None:
    story = Story().goes_on(1).goes_on(2.9, {"west": 5})
    assert story.lost == {}
    assert story.goes_on(0.4, {"west": 5}).lost == {"east": 3}


def test_a_cluster_never_seen_is_suspected_without_an_epoch() -> None:
    assert Story().goes_on(3.9, {"west": 5}).lost == {}
    assert Story().goes_on(4.2, {"west": 5}).lost == {"east": 0}


def test_an_outage_begins_the_quiet_period_anew() -> None:
    story = Story().goes_on(10)
    story.goes_on(1, {}, hearing=False).goes_on(3.9, {})
    assert story.lost == {}
    assert story.goes_on(0.3, {}).lost == BOTH


def test_a_deaf_router_judges_nobody() -> None:
    assert Story().goes_on(10).goes_on(9, {}, hearing=False).lost == {}


def test_an_outage_too_short_for_a_tick_counts() -> None:
    story = Story().goes_on(10)
    story.outages += 1
    assert story.goes_on(3.9, {}).lost == {}


def test_a_router_that_stood_still_blames_itself() -> None:
    story = Story().goes_on(10)
    story.now += TTL
    assert story.goes_on(3.9, {}).lost == {}
    assert story.goes_on(0.3, {}).lost == BOTH


def test_whoever_says_hello_after_an_outage_was_never_lost() -> None:
    story = Story().goes_on(10).goes_on(1, {}, hearing=False).goes_on(2, {})
    again = {"east": 4, "west": 6}
    assert story.goes_on(9, again).lost == {}


def test_a_judgement_stands_through_an_outage_until_a_session_comes() -> None:
    story = Story().goes_on(10).goes_on(1, {"west": 5}).goes_on(3, {}, hearing=False)
    assert story.lost == {"east": 3}
    assert story.goes_on(1, {"west": 5}).lost == {"east": 3}
    assert story.goes_on(0.1, {"west": 5, "east": 4}).lost == {}


@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.floats(0.01, 3)), max_size=60))
def test_no_new_loss_within_two_ttls_of_deafness(
    happenings: list[tuple[bool, bool, float]],
) -> None:
    members = Membership(ttl=TTL, stall=TTL / 2)
    now, deaf_until = 0.0, 0.0
    for number, (hearing, there, pause) in enumerate(happenings):
        now += pause
        if not hearing or pause > TTL / 2 or number == 0:
            deaf_until = now
        before = {loss.cluster for loss in members.losses}
        sessions = {"east": 1} if there else {}
        members = observe(
            members, Observation(now, int(now * 1e9), hearing, 0, sessions, frozenset({"east"}))
        )
        if {loss.cluster for loss in members.losses} - before:
            assert now - deaf_until >= 2 * TTL
            assert not there
