"""The end of an ownership: who ended it finds itself fenced, and nothing ends half done."""

from functools import partial

from tests.mutations.mutation import Mutation

Ending = partial(Mutation, file="control_plane/ledger/endings.py")
FENCE = "control_plane/ledger/fence.py"
TESTS = "tests/control_plane/test_ledger_commit.py::"
RAISED = (f"{TESTS}test_i1_every_ending_raises_the_epoch[sqlite]",)

MUTATIONS = (
    Mutation(
        "terminal_raises", "I1", "Every end raises the epoch once more.",
        file=FENCE, within="ended", old="epoch=row.epoch + 1", new="epoch=row.epoch", tests=RAISED,
    ),
    Ending(
        "success_raises", "I1", "Success raises the epoch in the transaction that writes it.",
        within="Endings.end", old='ended(row), "succeeded"', new='row, "succeeded"', tests=RAISED,
    ),
    Ending(
        "failure_raises", "I1", "Failure raises the epoch in the transaction that writes it.",
        within="Endings._fail", old='ended(row), "failed"', new='row, "failed"', tests=RAISED,
    ),
    Mutation(
        "cancel_raises", "I1", "Cancel raises the epoch in the transaction that writes it.",
        file=FENCE, within="end", old="[ended(row) for row", new="[row for row", tests=RAISED,
    ),
    Ending(
        "success_complete", "I2", "The ledger itself checks that every output is live.",
        within="Endings.end",
        old="if await rows.count_live(self._connection, row.execution) < len(graph.nodes):",
        new="if False:", tests=(f"{TESTS}test_success_needs_every_output[sqlite]",),
    ),
    Ending(
        "released_clears", "I6", "RELEASED clears the owner in the row.",
        within="Endings.end", old='relinquished(row), "released"', new='row, "released"',
        tests=(f"{TESTS}test_released_work_is_claimed_by_nobody[sqlite]",),
    ),
    Mutation(
        "unreachable_raises", "I3", "Who can't read an input is fenced in the same transaction.",
        file=FENCE, within="abandoned", old="epoch=row.epoch + 1,", new="",
        tests=(f"{TESTS}test_i10_unreadable_input_takes_back_what_was_made_from_it[sqlite]",),
    ),
    Mutation(
        "lineage_closed", "I10", "With an output goes everything that was made from it.",
        file="control_plane/movement/lineage.py", within="to_declare",
        old="if lost and node in live", new="if False and lost and node in live",
        tests=("tests/control_plane/movement/test_lineage.py::test_what_is_read_again_takes_along_what_was_made_from_it",),
    ),
    Mutation(
        "lineage_again", "I10", "A declared node runs again and reads its own inputs again.",
        file="control_plane/movement/lineage.py", within="to_declare",
        old="if node not in live or node in declared}", new="if node not in live}",
        tests=("tests/control_plane/movement/test_lineage.py::test_a_declared_node_reads_again_too",),
    ),
    Mutation(
        "lineage_kept", "I10", "What was declared is live no more.",
        file="control_plane/ledger/declare.py", within="declare_unreachable",
        old=".where(*mine).values(live=False)", new=".where(*mine).values(live=True)",
        tests=(f"{TESTS}test_i10_unreadable_input_takes_back_what_was_made_from_it[sqlite]",),
    ),
)  # fmt: skip
