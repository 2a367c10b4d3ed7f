"""What the protocol promises, checked from the database's history after each fault, not logs."""

import json
import sqlite3
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any

from tests.model import trace


def check(database: sqlite3.Connection) -> None:
    """Fails on a history that breaks an invariant, or that the model does not allow."""
    impossible = trace.check(database)
    assert not impossible, "the model does not allow\n" + "\n".join(impossible)

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
    check_residency(database)


def check_residency(database: sqlite3.Connection) -> None:
    """I9: no owner and no byte of a run lies in a region that its policy does not allow."""
    for row in database.execute("SELECT id, policy FROM execution"):
        globs: list[str] = json.loads(row["policy"])["regions"]
        for what, region in regions_of(database, row["id"]) if globs else ():
            assert any(fnmatchcase(region, glob) for glob in globs), (
                f"I9, {row['id']} must stay in {globs}: {what} in {region}"
            )


def regions_of(database: sqlite3.Connection, execution: str) -> Iterator[tuple[str, str]]:
    asked = (execution,)
    owners = "SELECT region FROM placement WHERE execution = ? AND cluster != ''"
    for row in database.execute(owners, asked):
        yield "an owner", row["region"]
    outputs = "SELECT artifacts, offloaded, stdout, stderr FROM node_output WHERE execution = ?"
    for row in database.execute(outputs, asked):
        for artifact in [*json.loads(row[0]), *map(json.loads, filter(None, tuple(row)[1:]))]:
            yield f"an output's {artifact['uri']}", artifact["region"]
    for row in database.execute("SELECT artifact FROM checkpoint WHERE execution = ?", asked):
        yield "a checkpoint", artifact_of(row[0])["region"]
    for row in database.execute("SELECT region, copied FROM replica WHERE execution = ?", asked):
        yield "a copy's row", row["region"]
        yield "a copy", artifact_of(row["copied"])["region"]


def artifact_of(text: str) -> dict[str, Any]:
    return json.loads(text)
