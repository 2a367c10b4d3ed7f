"""Inside the agent, of work that does harm twice or is to leave: nothing begins, and nothing is
said, before the last copy is dead."""

from functools import partial

from tests.mutations.mutation import Mutation

Standing = partial(Mutation, file="data_plane_agent/fence.py")
Starting = partial(Mutation, file="data_plane_agent/starting.py")
Leaving = partial(Mutation, file="data_plane_agent/leaving.py")
Run = partial(Mutation, file="data_plane_agent/run.py")
FENCE = "tests/data_plane_agent/test_fence.py::"
EXCLUSIVE = "tests/data_plane_agent/test_engine_exclusive.py::"
QUIESCE = "tests/data_plane_agent/test_engine_quiesce.py::"

MUTATIONS = (
    Standing(
        "predecessor", "I6", "A new session starts nothing exclusive before its predecessor's end.",
        within="may_start", old="and now_ns >= standing.alone_ns", new="",
        tests=(f"{FENCE}test_a_new_session_waits_for_the_exclusive_work_of_its_predecessor",),
    ),
    Standing(
        "exclusive_in_session", "I6", "Without a live session nothing exclusive starts.",
        within="may_start", old="return standing.state.commits and now_ns", new="return now_ns",
        tests=(f"{FENCE}test_what_may_start_in_each_state",),
    ),
    Mutation(
        "renewal_live", "I6", "The kernel timer is never armed from a session that is over.",
        file="data_plane_agent/guard.py", within="Guard.until_ns",
        old="if standing.state.commits else 0", new="or 2**62",
        tests=("tests/data_plane_agent/test_guard.py::test_nothing_exclusive_runs_on_after_the_session",),
    ),
    Leaving(
        "jeopardy_stops", "I6", "Exclusive work stops as soon as the session is in doubt.",
        within="Leaving.stop_exclusive", old="if run.mode is Mode.EXCLUSIVE:", new="if False:",
        tests=(f"{EXCLUSIVE}test_in_jeopardy_it_is_stopped_at_once_and_starts_again_when_that_is_over",),
    ),
    Starting(
        "retry_waits", "I6", "An exclusive node is tried again when its last attempt is dead.",
        within="Starting.start", old="elif run.undead_of(one.key.node):", new="elif False:",
        tests=(f"{EXCLUSIVE}test_a_retry_waits_until_the_attempt_before_it_is_dead",),
    ),
    Run(
        "end_waits", "I6", "The last word about exclusive work is said when all of it is dead.",
        within="Run._end", old="if self.mode is Mode.IDEMPOTENT or", new="if True or",
        tests=(f"{EXCLUSIVE}test_its_end_is_said_when_everything_of_it_is_dead",),
    ),
    Leaving(
        "end_waits_predecessor", "I6", "No RELEASED before an older session's work must be over.",
        within="Leaving._end", old="and not self._guard.alone", new="and False",
        tests=(f"{EXCLUSIVE}test_a_new_session_says_no_released_before_that",),
    ),
    Run(
        "quiesced_starts_nothing", "I6", "What is to be let go of starts no further node.",
        within="Run._apply", old="case dag.Start() if self.leaving is not None:",
        new="case dag.Start() if False:",
        tests=(f"{QUIESCE}test_what_runs_ends_and_nothing_follows_it",
               f"{QUIESCE}test_who_does_not_end_in_time_is_stopped"),
    ),
)  # fmt: skip
