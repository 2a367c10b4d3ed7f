"""The run's own story, one line an event, written in the transaction of the event it tells.

Called by launch, dispatch, cancel, the ledger and movement; read by `view.py`.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from control_plane.database import table
from control_plane.executions.store import Timeline

TIMELINE = table(Timeline)


@dataclass(frozen=True, slots=True)
class Entry:
    """`kind` is one word: launched placed fenced assigned claimed suspected unreachable waiting
    ..."""

    execution: str
    epoch: int
    kind: str
    cluster: str = ""
    text: str = ""


async def tell(connection: AsyncConnection, entries: Sequence[Entry]) -> None:
    if not entries:
        return
    now = time.time_ns()
    await connection.execute(
        insert(TIMELINE),
        [
            {
                "execution": entry.execution,
                "at_ns": now,
                "epoch": entry.epoch,
                "kind": entry.kind,
                "cluster": entry.cluster,
                "text": entry.text,
            }
            for entry in entries
        ],
    )
