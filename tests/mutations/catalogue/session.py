"""The agent's own standing: until when it may act, by its own clock."""

from functools import partial

from tests.mutations.mutation import Mutation

Standing = partial(Mutation, file="data_plane_agent/fence.py")
TESTS = "tests/data_plane_agent/test_fence.py::"
STORIES = (f"{TESTS}test_stories",)
DEADLINE = (f"{TESTS}test_deadline",)

MUTATIONS = (
    Standing(
        "margin_rate", "I6", "The deadline leaves room for a clock that is one per cent slow.",
        within="deadline", old="(1 - RHO)", new="1", tests=(*DEADLINE, *STORIES),
    ),
    Standing(
        "margin_lateness", "I6", "The deadline leaves room for a watchdog that wakes late.",
        within="deadline", old="- lateness_ns", new="", tests=DEADLINE,
    ),
    Standing(
        "margin_measured", "I6", "A watchdog seen to be late moves the deadline nearer at once.",
        within="_extended", old="standing.deadline_ns - nearer", new="standing.deadline_ns",
        tests=(f"{TESTS}test_a_late_watchdog_moves_the_deadline_nearer_and_a_pause_does_not_for_ever",),
    ),
    Standing(
        "deadline_kept", "I6", "Past the deadline an agent is in jeopardy.",
        within="_expire", old="if now_ns < standing.deadline_ns:", new="if True:", tests=STORIES,
    ),
    Standing(
        "late_ack", "I6", "An acknowledgement that comes after its own deadline extends nothing.",
        within="_acked", old="or until <= now_ns", new="",
        tests=STORIES,
    ),
    Standing(
        "over_for_good", "I2", "A session that is over is not renewed by a late acknowledgement.",
        within="_acked", old="if standing.state in (State.JOINING, State.FENCED):", new="if False:",
        tests=(
            f"{TESTS}test_a_late_acknowledgement_changes_nothing_of_a_session_that_is_over",
        ),
    ),
    Standing(
        "commits_only_active", "I3", "Without a live session nothing is committed.",
        within="State.commits", old="return self in (", new="return True or self in (",
        tests=(f"{TESTS}test_what_each_state_may_do",),
    ),
    Standing(
        "claims_only_active", "I4", "Without a live session nothing is claimed.",
        within="State.claims", old="return self in (", new="return True or self in (",
        tests=(f"{TESTS}test_what_each_state_may_do",),
    ),
)  # fmt: skip
