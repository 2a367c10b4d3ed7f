"""Exclusive work in pods: who is told to run on, and when one is known to be dead."""

from functools import partial

from tests.mutations.mutation import Mutation

Launcher = partial(Mutation, file="data_plane_agent/pods/launcher.py")
Renewals = partial(Mutation, file="data_plane_agent/pods/renewals.py")
Death = partial(Mutation, file="data_plane_agent/pods/death.py")
Asking = partial(Mutation, file="sdk/whimbrel/runtime_pod_renewals.py")
Watch = partial(Mutation, file="sdk/whimbrel/runtime_pod_watch.py")
AGENT = "tests/data_plane_agent/pods/test_exclusive.py::"
POD = "tests/sdk/test_runtime_pod_exclusive.py::"

MUTATIONS = (
    Renewals(
        "pod_answers_live", "I6", "Without a live session no pod is told to run on.",
        within="PodRenewals.left_ns", old="or until <= now", new="",
        tests=(f"{AGENT}test_without_a_live_session_nobody_is_answered",),
    ),
    Renewals(
        "pod_answers_own", "I6", "Only what this session started or claimed is told to run on.",
        within="PodRenewals.left_ns", old="not held.renewable", new="not held.exclusive",
        tests=(f"{AGENT}test_one_from_before_is_answered_once_it_is_adopted",),
    ),
    Renewals(
        "pod_session_end", "I6", "A session that ends takes its pods with it.",
        within="PodRenewals.look", old="one.renewable = False", new="pass",
        tests=(f"{AGENT}test_a_session_that_ends_takes_its_attempts_with_it",),
    ),
    Renewals(
        "pod_remembered", "I6", "What a pod was told is remembered: until then it may run.",
        within="PodRenewals.left_ns", old="held.until_ns = max(held.until_ns or 0, until)", new="",
        tests=(f"{AGENT}test_its_end_is_told_once_its_last_deadline_is_over",),
    ),
    Renewals(
        "pod_margin", "I6", "A pod's end is believed a moment after its deadline.",
        within="PodRenewals.may_run", old="+ MARGIN_NS", new="",
        tests=(f"{AGENT}test_its_end_is_told_once_its_last_deadline_is_over",),
    ),
    Renewals(
        "pod_from_before", "I6", "What an earlier agent told a pod is not known.",
        within="PodRenewals.may_run", old="held.until_ns is None or",
        new="held.until_ns is not None and",
        tests=(f"{AGENT}test_one_from_before_is_over_when_a_later_session_would_be",),
    ),
    Launcher(
        "pod_unseen", "I6", "A pod that nobody sees may run on until its deadline.",
        within="PodLauncher._begin_end", old="self._renewals.may_run(held)", new="False",
        tests=(f"{AGENT}test_a_pod_that_is_taken_off_the_list_by_force_proves_nothing",),
    ),
    Launcher(
        "pod_given_up", "I6", "A pod that is given up gets no further answer.",
        within="PodLauncher._begin_end", old="held.renewable = False", new="pass",
        tests=(f"{AGENT}test_its_end_is_told_once_its_last_deadline_is_over",),
    ),
    Death(
        "pod_forced", "I6", "A pod that is gone without its node's word may run on.",
        within="Death._alive",
        old="if held is not None and (seen is None or seen.ended is None):", new="if False:",
        tests=(f"{AGENT}test_killed_and_taken_off_the_list_by_force_it_may_run_on",),
    ),
    Death(
        "pod_on_its_way", "I6", "A pod that is being made may run a moment later.",
        within="Death._alive", old="not making.done()", new="False",
        tests=("tests/data_plane_agent/pods/test_moves.py::test_a_pod_that_is_being_made_is_waited_for",),
    ),
    Asking(
        "pod_counts_from", "I6", "What is left counts from before the question.",
        within="Renewals._look", old="until_ns = asked_ns +", new="until_ns = self._now_ns() +",
        tests=(f"{POD}test_an_answer_to_an_earlier_question_counts_from_that_one",),
    ),
    Watch(
        "pod_exec", "I6", "Process 1 ends what has become another program.",
        within="Child._left", old="if self._granted is None:", new="if True:",
        tests=(f"{POD}test_what_became_another_program_is_ended_by_process_1",),
    ),
)  # fmt: skip
