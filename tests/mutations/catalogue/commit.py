"""A batch of an agent's events: numbered once, taken once, and only up to the first objection."""

from functools import partial

from tests.mutations.mutation import Mutation

Commit = partial(Mutation, file="control_plane/ledger/commit.py")
TESTS = "tests/control_plane/test_ledger_commit.py::"

MUTATIONS = (
    Commit(
        "cursor_gap", "I8", "A batch that leaves numbers out is not taken.",
        within="commit", old="if batch.first > cursor + 1:", new="if False:",
        tests=(f"{TESTS}test_a_gap_takes_nothing[sqlite]",),
    ),
    Commit(
        "cursor_repeat", "I8", "What lies below the cursor is answered, not taken again.",
        within="commit", old="min(max(cursor + 1 - batch.first, 0), len(batch.events))", new="0",
        tests=(f"{TESTS}test_i8_late_copies_of_a_batch_change_nothing[sqlite]",
               f"{TESTS}test_i8_a_lost_reply_is_answered_the_same_again[sqlite]"),
    ),
    Commit(
        "cursor_moves", "I8", "The cursor moves in the batch's own transaction.",
        within="commit", old=".values(cursor=cursor)", new=".values(cursor=0)",
        tests=(f"{TESTS}test_i8_late_copies_of_a_batch_change_nothing[sqlite]",),
    ),
    Commit(
        "cursor_session", "I2", "A session that was never opened commits nothing.",
        within="lock_cursor", old="raise Fenced(f", new="return 0 and (f",
        tests=(f"{TESTS}test_a_session_that_was_never_opened_is_refused[sqlite]",),
    ),
    Commit(
        "batch_fenced", "I3", "Each event is checked against the fence.",
        within="walk", old="if row is None or not owns(", new="if row is None or False and owns(",
        tests=(f"{TESTS}test_i3_no_event_of_an_older_epoch_changes_a_row[sqlite-Output]",),
    ),
    Commit(
        "batch_stops", "I10", "Of a run's events none is taken after one that was refused.",
        within="Work.taken", old="taken = index <=", new="taken = True or index <=",
        tests=(f"{TESTS}test_i10_nothing_of_a_run_is_taken_after_a_conflict",),
    ),
    Commit(
        "batch_stops_repeated", "I10", "Nor where the refusal was answered, and its answer lost.",
        within="objected", old="return stops", new="return {}",
        tests=(f"{TESTS}test_i10_a_conflict_whose_answer_was_lost_stops_what_is_sent_with_it[sqlite]",),
    ),
    Mutation(
        "first_output_stays", "I2", "Where an output is live, no second one becomes live.",
        file="control_plane/ledger/rows.py", within="insert_outputs",
        old="index_where=LIVE[connection.dialect.name],", new="index_where=OUTPUT.c.epoch < 0,",
        tests=(f"{TESTS}test_i2_the_first_output_of_a_node_stays[sqlite]",),
    ),
    Commit(
        "conflict_told", "I10", "Another result of the same node is a conflict; the first stays.",
        within="against", old="if output.output_digest == kept.output_digest:", new="if True:",
        tests=(f"{TESTS}test_i2_the_first_output_of_a_node_stays[sqlite]",),
    ),
    Mutation(
        "claim_shows", "I5", "The Claim answers every live output.",
        file="control_plane/ledger/claims.py", within="claim_all",
        old="outputs=tuple(known.outputs.get(answer.execution, ())),", new="outputs=(),",
        tests=(f"{TESTS}test_i5_the_next_owner_learns_everything[sqlite]",),
    ),
    Mutation(
        "claim_shows_live", "I10", "The Claim answers no output that was declared unreachable.",
        file="control_plane/ledger/claims.py", within="Known.read",
        old="OUTPUT.c.execution.in_(names), OUTPUT.c.live)", new="OUTPUT.c.execution.in_(names))",
        tests=(f"{TESTS}test_i10_unreadable_input_takes_back_what_was_made_from_it[sqlite]",),
    ),
    Mutation(
        "restored_above", "I1", "A row older than its agent's epoch is fenced above it.",
        file="control_plane/ledger/restored.py", within="above", old="epoch=seen + 1,", new="",
        tests=("tests/control_plane/test_restored.py::test_a_commit_above_the_row_alarms_and_fences[sqlite]",),
    ),
)  # fmt: skip
