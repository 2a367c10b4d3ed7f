"""Takeover, launch and planned moves: what a story may touch, and when it has to wait."""

from functools import partial

from tests.mutations.mutation import Mutation

Guard = partial(Mutation, file="control_plane/movement/guard.py")
Rows = partial(Mutation, file="control_plane/movement/rows.py")
LOSS = "tests/control_plane/movement/test_guard.py::"
STEPS = "tests/control_plane/movement/test_activities.py::"
STORIES = "tests/control_plane/movement/test_stories.py::"

MUTATIONS = (
    Guard(
        "mass_loss", "liveness", "Most of the agents gone at once: it is we who lost sight.",
        within="mass_loss", old="2 * len(lost) <= agents", new="True",
        tests=(f"{LOSS}test_two_of_three_is_us",),
    ),
    Guard(
        "mass_loss_window", "liveness", "Who was lost long before says nothing about today.",
        within="mass_loss", old="abs(sight.lost_since_ns - since_ns) <= window", new="True",
        tests=(f"{LOSS}test_who_was_lost_before_does_not_count",),
    ),
    Guard(
        "mass_loss_returned", "I2", "Only a later session is a return.",
        within="returned", old="sight.cluster_epoch > cluster_epoch", new="True",
        tests=(f"{LOSS}test_a_later_session_is_a_return",),
    ),
    Mutation(
        "hold", "liveness", "A failover waits as long as its guard says so.",
        file="control_plane/movement/failover.py", within="ClusterFailoverWorkflow._guard",
        old="if not loss.hold:", new="if True:",
        tests=(f"{STORIES}test_a_mass_loss_holds_and_the_hold_ends",),
    ),
    Mutation(
        "hold_ends", "I8", "A hold ends after its limit.",
        file="control_plane/movement/failover.py", within="ClusterFailoverWorkflow._guard",
        old="if ended:", new="if ended and loss.returned:",
        tests=(f"{STORIES}test_a_mass_loss_holds_and_the_hold_ends",),
    ),
    Rows(
        "takeover_session", "I2", "A lost session loses only what no later one has claimed.",
        within="owned_rows", old="FENCE.c.owner_cluster_epoch <= cluster_epoch,", new="",
        tests=(f"{STEPS}test_only_what_the_lost_session_owns_is_taken[sqlite]",),
    ),
    Rows(
        "takeover_owner", "I2", "A lost session loses only what its cluster still owns.",
        within="owned_rows", old="FENCE.c.owner_cluster == cluster,", new="",
        tests=(f"{STEPS}test_only_what_the_lost_session_owns_is_taken[sqlite]",),
    ),
    Rows(
        "takeover_seen", "I2", "A row that was claimed since it was read is left to its claimant.",
        within="to_nobody", old="if not answer.fenced or answer.row is None:",
        new="if answer.row is None:",
        tests=(f"{STEPS}test_a_row_claimed_meanwhile_is_left_to_its_claimant[sqlite]",),
    ),
    Rows(
        "pinned_stays", "PINNED", "Pinned work is never replaced by itself.",
        within="owned_rows", old="not_(stays()),", new="",
        tests=(f"{STEPS}test_what_is_never_replaced_says_so_once[sqlite]",),
    ),
    Rows(
        "session_over", "I2", "A story takes a row only when the session that claimed it is over.",
        within="session_over", old="row.owner_cluster_epoch <= cluster.cluster_epoch", new="True",
        tests=(f"{STEPS}test_a_later_session_than_the_lost_one_keeps_what_it_claimed[sqlite]",),
    ),
    Rows(
        "repeated_step", "I8", "A story's step that is tried again is the same decision.",
        within="decision", old='canonical([story, "nobody", execution])',
        new="canonical([story, execution, now_ns()])",
        tests=(f"{STEPS}test_what_a_crash_left_half_way_is_taken_up[sqlite]",),
    ),
    Mutation(
        "fence_before_assign", "I4", "No assignment is written of what the fence refused.",
        file="control_plane/executions/dispatch.py", within="apply",
        old="if not answer.fenced or answer.row is None", new="if answer.row is None",
        tests=("tests/control_plane/test_fence.py::test_a_refused_fence_is_assigned_to_nobody[sqlite]",),
    ),
    Mutation(
        "dispatch_quiet", "I6", "A launch places only what nobody has claimed.",
        file="control_plane/executions/loaded.py", within="assigned",
        old="row.owner_cluster_epoch == 0", new="True",
        tests=("tests/control_plane/test_dispatch.py::test_claimed_and_ended_runs_are_left_alone[sqlite]",),
    ),
)  # fmt: skip
