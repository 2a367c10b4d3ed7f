"""The history that a real control plane has written, read from its database for the model to judge.

Called by `tests/e2e/checker.py` after each fault, and by hand: `python -m tests.model.trace FILE`.
Each run's timeline is replayed by `replay.py`; empty = everything that happened is allowed.
"""

import sqlite3
import sys
from collections import defaultdict
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from tests.model.history import History, Last, Line, Made
from tests.model.replay import impossible

LINES = "SELECT execution, epoch, kind, cluster, text FROM timeline ORDER BY id"
PLACED = "SELECT execution, epoch, cluster FROM placement WHERE cluster != ''"
MADE = "SELECT execution, node, epoch, cluster, cluster_epoch FROM node_output ORDER BY id"
SESSIONS = "SELECT name, cluster_epoch FROM cluster"
ROWS = (
    "SELECT id, mode, f.epoch, owner_cluster, owner_cluster_epoch, released, want, phase"
    " FROM execution JOIN execution_fence f ON f.execution = id ORDER BY id"
)


def check(database: Path | str | sqlite3.Connection) -> list[str]:
    """One line for each thing that no rule of the model allows."""
    if isinstance(database, sqlite3.Connection):
        return judged(database)
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        return judged(connection)


def judged(connection: sqlite3.Connection) -> list[str]:
    known = read(connection)
    found = [line for history in known.histories for line in impossible(history)]
    for history in known.histories:
        for line in history.lines:
            newest = known.sessions.get(line.cluster, 0)
            if line.kind == "claimed" and int(line.text.removeprefix("session ")) > newest:
                said = f"{line.cluster} claims in {line.text}, its newest is {newest}"
                found.append(f"{history.execution}: {said}")
    return found


class Known:
    """What was read, in one transaction: the servers may still be writing."""

    def __init__(self, histories: Sequence[History], sessions: dict[str, int]) -> None:
        self.histories = histories
        self.sessions = sessions


def read(connection: sqlite3.Connection) -> Known:
    connection.execute("BEGIN")
    try:
        lines, placed = grouped(connection, LINES), grouped(connection, PLACED)
        made = grouped(connection, MADE)
        sessions = dict(tuple(row) for row in connection.execute(SESSIONS))
        histories = [
            History(
                execution,
                mode,
                [Line(*one) for one in lines[execution]],
                dict(placed[execution]),
                [Made(*one) for one in made[execution]],
                Last(epoch, owner, session, bool(released), want, phase),
            )
            for execution, mode, epoch, owner, session, released, want, phase in connection.execute(
                ROWS
            )
        ]
    finally:
        connection.rollback()
    return Known(histories, sessions)


def grouped(connection: sqlite3.Connection, query: str) -> dict[str, list[Any]]:
    """Rows by their first column, without it."""
    groups: dict[str, list[Any]] = defaultdict(list)
    for execution, *rest in connection.execute(query):
        groups[execution].append(tuple(rest))
    return groups


if __name__ == "__main__":
    sys.exit("\n".join(line for file in sys.argv[1:] for line in check(file)) or 0)
