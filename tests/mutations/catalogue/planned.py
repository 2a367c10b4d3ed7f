"""Planned moves: break before make, and only of what has not gone on by itself."""

from functools import partial

from tests.mutations.mutation import Mutation

Leaving = partial(Mutation, file="control_plane/movement/migrating.py")
MOVES = "tests/control_plane/movement/test_migrating.py::"
QUIESCE = "tests/control_plane/test_quiesce.py::"

MUTATIONS = (
    Leaving(
        "released_first", "I6", "A move goes on when the row says that its owner let go.",
        within="Leaving.released", old="if not row.owner_cluster:", new="if True:",
        tests=(f"{MOVES}test_only_its_owner_lets_go_of_what_does_harm_twice[sqlite]",),
    ),
    Leaving(
        "patient", "I6", "Only its owner lets go of what does harm twice, however long it takes.",
        within="Leaving._patient", old="found.scalar_one() != Mode.IDEMPOTENT", new="False",
        tests=(f"{MOVES}test_only_its_owner_lets_go_of_what_does_harm_twice[sqlite]",),
    ),
    Leaving(
        "taken_over", "I2", "A move ends when a takeover was quicker.",
        within="Leaving.released", old="if standing is not None or row is None:",
        new="if row is None:",
        tests=(f"{MOVES}test_a_takeover_ends_the_move[sqlite-released]",),
    ),
    Mutation(
        "level_kept", "I6", "That its owner is to let go stands in the row.",
        file="control_plane/ledger/fence.py", within="quiesce",
        old="row = replace(row, want=Want.QUIESCE)", new="pass",
        tests=(f"{QUIESCE}test_quiesce_is_a_compare_and_set[sqlite]",),
    ),
    Mutation(
        "level_said", "I6", "A key that is written again says what the row says, never RUN.",
        file="control_plane/executions/dispatch.py", within="Dispatch._assign",
        old="want=Want.RUN if fresh else loaded[item.execution].row.want", new="want=Want.RUN",
        tests=(f"{QUIESCE}test_keys_say_what_the_row_says[sqlite]",),
    ),
)  # fmt: skip
