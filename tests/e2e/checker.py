"""What the protocol promises, checked from the database's history after each fault, not logs."""

import sqlite3


def check(database: sqlite3.Connection) -> None:
    """Fails on any execution whose history breaks an invariant."""
    live = database.execute(
        "SELECT execution, node, count(*) AS n FROM node_output WHERE live"
        " GROUP BY execution, node HAVING n > 1"
    ).fetchall()
    assert not live, f"I2, more than one live output: {[tuple(row) for row in live]}"

    above = database.execute(
        "SELECT o.execution, o.node, o.epoch, f.epoch FROM node_output o JOIN execution_fence f"
        " ON f.execution = o.execution WHERE o.epoch > f.epoch"
    ).fetchall()
    assert not above, f"I1, a commit above its row's epoch: {[tuple(row) for row in above]}"

    for execution in [row[0] for row in database.execute("SELECT execution FROM execution_fence")]:
        outputs = database.execute(
            "SELECT epoch, cluster FROM node_output WHERE execution = ? ORDER BY id", (execution,)
        ).fetchall()
        epochs = [row[0] for row in outputs]
        assert epochs == sorted(epochs), (
            f"I3, {execution}: a commit of an older epoch after a newer one: {epochs}"
        )
        placed = {
            row[0]: row[1]
            for row in database.execute(
                "SELECT epoch, cluster FROM placement WHERE execution = ? AND cluster != ''",
                (execution,),
            )
        }
        for epoch, cluster in outputs:
            assert placed.get(epoch) == cluster, (
                f"I4, {execution}: {cluster} committed at {epoch}, placed: {placed}"
            )
        phase = database.execute(
            "SELECT phase FROM execution WHERE id = ?", (execution,)
        ).fetchone()[0]
        row = database.execute(
            "SELECT epoch, terminal FROM execution_fence WHERE execution = ?", (execution,)
        ).fetchone()
        assert bool(row[1]) == (phase in ("SUCCEEDED", "FAILED", "ABORTED")), (
            execution,
            phase,
            tuple(row),
        )
        if row[1] and placed:
            assert row[0] > max(placed), (
                f"I1, {execution}: the terminal transition did not raise the epoch"
            )
