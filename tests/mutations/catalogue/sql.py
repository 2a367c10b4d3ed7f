"""Transactions and locks: what was read is still true when it is written, on both databases."""

from functools import partial

from tests.mutations.mutation import Mutation

Sql = partial(Mutation, file="control_plane/database.py")
FENCE = "tests/control_plane/test_fence.py::"
DATABASE = "tests/control_plane/test_database.py::"
WRITERS = (f"{DATABASE}test_sqlite_writers_exclude_each_other_from_the_first_read_on",)

MUTATIONS = (
    Sql(
        "lock_shared", "I3", "PostgreSQL: a commit waits for an open fence (FOR SHARE).",
        within="shared", old="query.with_for_update(read=True)", new="query",
        tests=(f"{FENCE}test_i3_a_commit_waits_for_a_fence_that_is_open[postgres]",
               f"{FENCE}test_i3_a_fence_waits_for_a_commit_that_is_open[postgres]"),
    ),
    Sql(
        "lock_exclusive", "I1", "PostgreSQL: of two fences at once one waits (FOR UPDATE).",
        within="exclusive", old="query.with_for_update()", new="query",
        tests=(f"{FENCE}test_i1_of_two_fences_at_once_one_wins[postgres]",),
    ),
    Sql(
        "begin_immediate", "I3", "SQLite: a transaction that writes is alone from its first read.",
        within="Database._engine.on_begin", old="BEGIN IMMEDIATE", new="BEGIN", tests=WRITERS,
    ),
    Sql(
        "begin_said", "I3", "SQLite: a transaction begins where it is said, before its first read.",
        within="Database._engine", old='event.listen(engine.sync_engine, "begin", on_begin)',
        new="pass", tests=WRITERS,
    ),
    Sql(
        "synchronous", "I8", "SQLite: what is acknowledged is on the disk.",
        within="Database._engine.on_connect", old="synchronous=FULL", new="synchronous=NORMAL",
        tests=WRITERS,
    ),
)  # fmt: skip
