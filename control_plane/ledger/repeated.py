"""What to answer for events that were settled before: the reply was lost, the truth is in the
rows.

Called by `commit.py` for the part of a batch that lies below the cursor; changes nothing.
"""

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from control_plane.ledger import rows
from control_plane.ledger.events import (
    Batch,
    Failed,
    Output,
    Released,
    Result,
    Succeeded,
    Unreachable,
    Verdict,
)
from control_plane.ledger.fence import FENCE


async def repeated(connection: AsyncConnection, batch: Batch, settled: int) -> list[Verdict]:
    """Verdicts for the first `settled` events, as the first answer gave them."""
    if not settled:
        return []
    events = batch.events[:settled]
    names = sorted({event.execution for event in events})
    found = await connection.execute(
        select(FENCE.c.execution, FENCE.c.epoch, FENCE.c.terminal, FENCE.c.released).where(
            FENCE.c.execution.in_(names)
        )
    )
    fences = {row.execution: row for row in found}
    kept = await rows.live(
        connection,
        [(event.execution, event.body.node) for event in events if isinstance(event.body, Output)],
    )
    verdicts: list[Verdict] = []
    for index, event in enumerate(events):
        fence = fences.get(event.execution)
        current = fence.epoch if fence else 0
        match event.body:
            case Output() as output:
                live = kept.get((event.execution, output.node))
                if live is not None and live.output_digest == output.output_digest:
                    continue
                if live is None or current != event.epoch:
                    verdicts.append(Verdict(index, Result.FENCED, current))
                else:
                    verdicts.append(Verdict(index, Result.CONFLICT, live.epoch, live))
            case Succeeded() | Failed():
                if fence is not None and fence.terminal and current == event.epoch + 1:
                    continue
                result = Result.INCOMPLETE if current == event.epoch else Result.FENCED
                verdicts.append(Verdict(index, result, current))
            case Released() | Unreachable():
                # Taken, it would have let go of the row or raised its epoch.
                if fence is not None and current == event.epoch and not fence.released:
                    verdicts.append(Verdict(index, Result.INCOMPLETE, current))
            case _:
                if current != event.epoch:
                    verdicts.append(Verdict(index, Result.FENCED, current))
    return verdicts
