"""Small databases with a history in them, as the control plane writes it: for the tests of traces.

Built by `test_trace.py` from lines of words; only the columns that `trace.py` reads are there.
"""

import sqlite3
from collections.abc import Sequence

TABLES = """
CREATE TABLE execution (id TEXT, mode TEXT, phase TEXT);
CREATE TABLE execution_fence (execution TEXT, epoch INTEGER, owner_cluster TEXT,
    owner_cluster_epoch INTEGER, released INTEGER, want TEXT);
CREATE TABLE timeline (id INTEGER PRIMARY KEY, execution TEXT, epoch INTEGER, kind TEXT,
    cluster TEXT, text TEXT);
CREATE TABLE placement (execution TEXT, epoch INTEGER, cluster TEXT);
CREATE TABLE node_output (id INTEGER PRIMARY KEY, execution TEXT, node TEXT, epoch INTEGER,
    cluster TEXT, cluster_epoch INTEGER);
CREATE TABLE cluster (name TEXT, cluster_epoch INTEGER);
"""
RUN = "p/d/run"


def recorded(
    lines: Sequence[str], row: str, *, made: Sequence[str] = (), mode: str = "idempotent",
    placed: dict[int, str] | None = None,
) -> sqlite3.Connection:  # fmt: skip
    """`lines`: "epoch kind cluster text", - = nobody; `row`: "phase epoch owner session released
    want"; `made`: "node epoch cluster session"."""
    connection = sqlite3.connect(":memory:")
    connection.executescript(TABLES)
    phase, epoch, owner, session, released, want = row.split()
    connection.execute("INSERT INTO execution VALUES (?, ?, ?)", (RUN, mode, phase))
    connection.execute(
        "INSERT INTO execution_fence VALUES (?, ?, ?, ?, ?, ?)",
        (RUN, epoch, owner.strip("-"), session, released, want),
    )
    decided: dict[int, str] = {}
    for line in lines:
        at, kind, cluster, *text = line.split(maxsplit=3)
        connection.execute(
            "INSERT INTO timeline (execution, epoch, kind, cluster, text) VALUES (?, ?, ?, ?, ?)",
            (RUN, int(at), kind, cluster.strip("-"), "".join(text)),
        )
        if kind == "placed":
            decided[int(at)] = cluster
    connection.executemany(
        "INSERT INTO placement VALUES (?, ?, ?)",
        [(RUN, at, cluster) for at, cluster in (decided if placed is None else placed).items()],
    )
    for one in made:
        node, at, cluster, of = one.split()
        connection.execute(
            "INSERT INTO node_output (execution, node, epoch, cluster, cluster_epoch)"
            " VALUES (?, ?, ?, ?, ?)",
            (RUN, node, int(at), cluster, int(of)),
        )
    connection.executemany("INSERT INTO cluster VALUES (?, 3)", [("east",), ("west",)])
    connection.commit()
    return connection
