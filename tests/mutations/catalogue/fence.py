"""The row that says who may write: its compare-and-set, the Claim, and what a commit must match."""

from functools import partial

from tests.mutations.mutation import Mutation

Fence = partial(Mutation, file="control_plane/ledger/fence.py")
TESTS = "tests/control_plane/test_fence.py::"
COMMITS = "tests/control_plane/test_ledger_commit.py::"
REFUSED = (f"{TESTS}test_anything_else_is_refused",)
PARTS = (f"{TESTS}test_each_part_of_an_ownership_is_compared",)

MUTATIONS = (
    Fence(
        "fence_epoch", "I1", "A fence raises the epoch by one, from the epoch that its caller saw.",
        within="judge", old="if row.epoch != wish.epoch - 1:", new="if False:", tests=REFUSED,
    ),
    Fence(
        "fence_seen_owner", "I2", "A fence takes a row only from the owner that its caller saw.",
        within="judge", old="(row.owner_cluster, row.owner_cluster_epoch) != (",
        new="(wish.seen_cluster, row.owner_cluster_epoch) != (", tests=REFUSED,
    ),
    Fence(
        "fence_seen_session", "I2", "A row that was claimed meanwhile is not taken.",
        within="judge", old="(row.owner_cluster, row.owner_cluster_epoch) != (",
        new="(row.owner_cluster, wish.seen_cluster_epoch) != (", tests=REFUSED,
    ),
    Fence(
        "fence_repeated", "I8", "The same decision again succeeds and changes nothing.",
        within="judge", old="if row.epoch == wish.epoch and", new="if False and",
        tests=(f"{TESTS}test_the_same_decision_again_changes_nothing",),
    ),
    Fence(
        "fence_decision", "I2", "Another decision for the same epoch is refused.",
        within="judge", old="row.decision_digest == wish.decision_digest", new="True",
        tests=REFUSED,
    ),
    Fence(
        "fence_terminal", "I1", "A run that has ended is never given to anybody.",
        within="judge", old="if row.terminal:", new="if False:", tests=REFUSED,
    ),
    Fence(
        "fence_unclaims", "I4", "A new owner has to claim what the fence gave it.",
        within="judge", old="owner_cluster_epoch=0,", new="",
        tests=(f"{TESTS}test_a_fence_gives_the_row_to_its_cluster_unclaimed",),
    ),
    Fence(
        "claim_asked", "I4", "A Claim is granted by the row, and refused to everybody else.",
        within="claim", old="row is not None and admits(", new="row is not None or admits(",
        tests=("tests/control_plane/test_ledger_rpc.py::test_i3_a_stale_claim_is_refused_and_changes_no_row[sqlite]",),
    ),
    Fence(
        "claim_epoch", "I3", "A Claim of another epoch than the row's is refused.",
        within="admits", old="and row.epoch == epoch", new="", tests=PARTS,
    ),
    Fence(
        "claim_owner", "I2", "A cluster claims only what was given to it.",
        within="admits", old="and row.owner_cluster == cluster", new="", tests=PARTS,
    ),
    Fence(
        "claim_released", "I6", "What was let go of is claimed by nobody at that epoch.",
        within="admits", old="and not row.released", new="", tests=PARTS,
    ),
    Fence(
        "claim_terminal", "I1", "What has ended is claimed by nobody.",
        within="admits", old="not row.terminal", new="True", tests=PARTS,
    ),
    Fence(
        "claim_monotonic", "I2", "An older session of the owner never takes a claim back.",
        within="admits", old="and row.owner_cluster_epoch <= cluster_epoch", new="", tests=PARTS,
    ),
    Fence(
        "claim_raises", "I2", "A Claim writes its session into the row.",
        within="claim", old="replace(row, owner_cluster_epoch=cluster_epoch)", new="row",
        tests=(f"{COMMITS}test_a_run_from_launch_to_success[sqlite]",),
    ),
    Fence(
        "commit_epoch", "I3", "A commit must carry the row's epoch.",
        within="owns", old="and row.epoch == epoch", new="",
        tests=(f"{COMMITS}test_i3_no_event_of_an_older_epoch_changes_a_row[sqlite-Output]", *PARTS),
    ),
    Fence(
        "commit_owner", "I2", "A commit must come from the row's cluster.",
        within="owns", old="and row.owner_cluster == cluster", new="",
        tests=(f"{COMMITS}test_i3_no_event_of_an_older_epoch_changes_a_row[sqlite-Output]", *PARTS),
    ),
    Fence(
        "commit_session", "I2", "A commit must come from the session that claimed the row.",
        within="owns", old="and row.owner_cluster_epoch == cluster_epoch", new="",
        tests=(f"{COMMITS}test_i3_an_older_session_of_the_owner_is_fenced[sqlite-Output]", *PARTS),
    ),
    Fence(
        "commit_released", "I3", "After RELEASED its owner writes nothing more.",
        within="owns", old="and not row.released", new="", tests=PARTS,
    ),
    Fence(
        "commit_terminal", "I3", "After the end nobody writes anything.",
        within="owns", old="not row.terminal", new="True", tests=PARTS,
    ),
    Fence(
        "commit_claimed", "I4", "What nobody has claimed is written by nobody.",
        within="owns", old="and cluster_epoch > 0", new="",
        tests=(f"{TESTS}test_a_claim_is_needed_and_may_be_new",),
    ),
    Fence(
        "quiesce_owner", "I1", "Only the owner and epoch that a story saw is asked to let go.",
        within="quiesce", old="(row.epoch, row.owner_cluster) != (epoch, cluster)", new="False",
        tests=("tests/control_plane/test_quiesce.py::test_quiesce_is_a_compare_and_set[sqlite]",),
    ),
)  # fmt: skip
