"""Exclusive runs that their owner did not let go of: how long its copy may be running yet.

Asked by `dispatch.py` before it places; remembers in this process alone, by its own monotonic
clock, since when it has seen each of them ownerless: a new process begins to count anew.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from whimbrel.spec import Assignment, Want

from control_plane.database import Database
from control_plane.ledger.fence import FenceRow
from control_plane.ledger.restored import compare_refusals
from control_plane.routing.port import Router

REASON = "exclusive_wait"

RHO = 0.01
"""How much slower than ours the old owner's clock may run, as a share."""

FORGOTTEN_SECONDS = 60.0
"""What nobody asks about for so long has been placed, or has ended. Shorter: a router that is away
makes runs wait once more; longer: memory."""


@dataclass(slots=True)
class Seen:
    epoch: int
    since: float
    asked: float


class OldCopies:
    """`margin_seconds` covers the error of the clocks and the time a kill takes."""

    def __init__(
        self, database: Database, router: Router, *, margin_seconds: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._database = database
        self._router = router
        self._margin = margin_seconds
        self._clock = clock
        self._ttl = 0.0
        self._seen: dict[str, Seen] = {}

    async def living(self, rows: Sequence[FenceRow]) -> set[str]:
        """Those of these ownerless rows whose last owner may run them yet."""
        waiting = [row for row in rows if may_live(row)]
        if not waiting:
            return set()
        # A session opened under a longer TTL keeps it: the longest that was seen counts.
        self._ttl = max(self._ttl, (await self._router.snapshot()).ttl_ms / 1000)
        await self._begin([row for row in waiting if not self._counts(row)])
        now = self._clock()
        living: set[str] = set()
        for row in waiting:
            if not self._counts(row):
                living.add(row.execution)
                continue
            seen = self._seen[row.execution]
            seen.asked = now
            if now - seen.since < self._wait:
                living.add(row.execution)
        for name in [n for n, seen in self._seen.items() if now - seen.asked > FORGOTTEN_SECONDS]:
            del self._seen[name]
        return living

    def due_in(self) -> float:
        """Seconds until the next of them may be placed; infinite when none waits for that."""
        now = self._clock()
        ends = (seen.since + self._wait - now for seen in self._seen.values())
        return min((left for left in ends if left > 0), default=math.inf)

    @property
    def _wait(self) -> float:
        return self._ttl * (1 + RHO) + self._margin

    def _counts(self, row: FenceRow) -> bool:
        return row.execution in self._seen and self._seen[row.execution].epoch == row.epoch

    async def _begin(self, rows: Sequence[FenceRow]) -> None:
        """Their old keys go first: while one stands, a live owner has not been told to stop."""
        if not rows:
            return
        keys = [Assignment(row.execution, row.epoch, "", Want.CANCEL) for row in rows]
        results = await self._router.unassign(keys)
        now = self._clock()
        await compare_refusals(self._database, zip(keys, results, strict=True))
        for row, result in zip(rows, results, strict=True):
            if result.written:
                self._seen[row.execution] = Seen(row.epoch, now, now)


def may_live(row: FenceRow) -> bool:
    """Epoch 0 never had an owner; who let go has stopped it."""
    return row.epoch > 0 and not row.released
