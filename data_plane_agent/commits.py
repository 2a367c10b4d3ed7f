"""Outbox -> ledger: one batch in flight, and while it is, the next one grows.

Run by the engine; opened by it for each session, once everything held has its verdict; hands back
what was settled, with the ledger's objections.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from whimbrel.errors import WhimbrelError

from data_plane_agent import messages as m
from data_plane_agent.guard import Guard
from data_plane_agent.outbox import Entry, Outbox
from data_plane_agent.pause import Pause

log = logging.getLogger(__name__)

BATCH_EVENTS, BATCH_BYTES = 1000, 4 * 1024 * 1024
"""At most in one transaction of the ledger. More: others wait for it longer; fewer: each event
costs more."""

Settled = Sequence[tuple[Entry, m.Objection | None]]


class Commits:
    """`opened` is set while a session may commit."""

    def __init__(
        self,
        *,
        outbox: Outbox,
        ledger: m.Ledger,
        guard: Guard,
        on_settled: Callable[[Settled], Awaitable[None]],
        renew: Callable[[], None],
    ) -> None:
        self._outbox = outbox
        self._ledger = ledger
        self._guard = guard
        self._on_settled = on_settled
        self._renew = renew
        self._cluster_epoch = 0
        self.opened = asyncio.Event()

    def open(self, cluster_epoch: int) -> None:
        self._cluster_epoch = cluster_epoch
        self.opened.set()

    def shut(self) -> None:
        """A new session: nothing more is sent, and no answer taken, until it is opened again."""
        self._cluster_epoch = 0
        self.opened.clear()

    async def run(self) -> None:
        pause = Pause()
        while True:
            await self.opened.wait()
            batch = await self._outbox.batch(BATCH_EVENTS, limit_bytes=BATCH_BYTES)
            session, first = self._cluster_epoch, self._outbox.first
            if not self.opened.is_set():
                continue
            if not self._guard.state.commits:
                await asyncio.sleep(0.05)
                continue
            try:
                receipt = await self._ledger.commit(
                    [entry.data for entry in batch], first=first, cluster_epoch=session
                )
            except WhimbrelError as error:
                log.warning("can't commit, trying again: %s", error)
                await pause.wait()
                continue
            # The answer of an old session is nobody's: the new one tells everything again.
            if session == self._cluster_epoch:
                pause.over()
                await self._take(batch, first, receipt)

    async def _take(self, batch: Sequence[Entry], first: int, receipt: m.Receipt) -> None:
        if receipt.gap:
            log.error("the ledger expects event %d, ours begin at %d", receipt.gap, first)
            if first < receipt.gap <= first + len(batch):
                self._outbox.settle(receipt.gap - 1)
            else:
                # It knows less than it confirmed (a restored backup): only a new session counts
                # anew.
                self.shut()
                self._renew()
            return
        count = max(0, min(receipt.cursor - first + 1, len(batch)))
        self._outbox.settle(first + count - 1)
        objections = {one.index: one for one in receipt.objections}
        await self._on_settled(
            [(entry, objections.get(index)) for index, entry in enumerate(batch[:count])]
        )
