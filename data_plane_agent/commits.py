"""Outbox -> ledger: one batch in flight, and while it is, the next one grows.

Run by the engine; opened by it for each session, once everything held has its verdict; hands back
what was settled, with the ledger's objections. A batch that the ledger can't take is halved until
one event stands alone: that one ends its own execution and holds up no other.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

from whimbrel.errors import Fenced, Unreachable, WhimbrelError
from whimbrel.spec import Failure, Owner

from data_plane_agent import codec
from data_plane_agent import messages as m
from data_plane_agent.guard import Guard
from data_plane_agent.outbox import Entry, Outbox
from data_plane_agent.pause import Pause

log = logging.getLogger(__name__)

BATCH_EVENTS, BATCH_BYTES = 1000, 4 * 1024 * 1024
"""At most in one transaction of the ledger. More: others wait for it longer; fewer: each event
costs more."""

REFUSALS = 5
"""Of one event alone, before it is given up. Fewer: a bad minute of the ledger's ends a run; more:
everything behind it waits longer."""

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
        pause: Pause | None = None,
    ) -> None:
        self._outbox = outbox
        self._ledger = ledger
        self._guard = guard
        self._on_settled = on_settled
        self._renew = renew
        self._pause = pause or Pause()
        self._cluster_epoch = 0
        self._most = BATCH_EVENTS
        self._refused = ((0, 0), 0)
        self._sent = 0
        self.opened = asyncio.Event()

    def open(self, cluster_epoch: int) -> None:
        self._cluster_epoch = cluster_epoch
        self._sent = 0
        self.opened.set()

    def shut(self) -> None:
        """A new session: nothing more is sent, and no answer taken, until it is opened again."""
        self._cluster_epoch = 0
        self.opened.clear()

    async def run(self) -> None:
        pause = self._pause
        while True:
            await self.opened.wait()
            batch = await self._outbox.batch(self._most, limit_bytes=BATCH_BYTES)
            session, first = self._cluster_epoch, self._outbox.first
            if not self.opened.is_set():
                continue
            if not self._guard.state.commits:
                await asyncio.sleep(0.05)
                continue
            self._sent = max(self._sent, first + len(batch) - 1)
            try:
                receipt = await self._ledger.commit(
                    [entry.data for entry in batch], first=first, cluster_epoch=session
                )
            except WhimbrelError as error:
                log.warning("can't commit, trying again: %s", error)
                receipt = None
                if not isinstance(error, Unreachable | Fenced):
                    receipt = await self._doubt(batch, first, session, error)
                if receipt is None:
                    await pause.wait()
                    continue
            # The answer of an old session is nobody's: the new one tells everything again.
            if session == self._cluster_epoch:
                pause.over()
                self._refused = ((0, 0), 0)
                self._most = min(self._most * 2, BATCH_EVENTS)
                await self._take(batch, first, receipt)

    async def _doubt(
        self, batch: Sequence[Entry], first: int, session: int, error: WhimbrelError
    ) -> m.Receipt | None:
        """The ledger answered and did not take it: try less, down to the one event it can't take,
        and end that one's execution in its place. The answer to this, None = nothing was taken."""
        self._most = max(1, len(batch) // 2)
        if len(batch) > 1:
            return None
        try:
            # Nothing at all is refused too while the ledger's database is away: nobody's fault.
            await self._ledger.commit([], first=first, cluster_epoch=session)
        except WhimbrelError:
            return None
        of, times = self._refused
        times = times + 1 if of == (session, first) else 1
        self._refused = ((session, first), times)
        if times < REFUSALS:
            return None
        entry = batch[0]
        fields = {"execution": entry.execution, "epoch": entry.epoch}
        log.error("an event ends its execution: the ledger can't take it: %s", error, extra=fields)
        try:
            receipt = await self._ledger.commit(
                [ending(entry, error)], first=first, cluster_epoch=session
            )
        except WhimbrelError as other:
            log.warning("can't end it either, trying again: %s", other, extra=fields)
            return None
        return receipt if receipt.objections else replace(receipt, objections=(over(entry),))

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
        objections = {one.index: one for one in receipt.objections}
        settled = [(entry, objections.get(index)) for index, entry in enumerate(batch[:count])]
        # What was said after a refused event may have been made from it.
        doubted = {
            (entry.execution, entry.epoch)
            for entry, objection in settled
            if objection is not None and objection.doubts(entry.epoch)
        }
        dropped = self._outbox.settle(first + count - 1, forget=doubted)
        if dropped:
            log.warning("%d events said after a refused one were dropped", dropped)
        await self._on_settled(settled)
        if dropped and self._sent >= first + count:
            # Some may have arrived, and had numbers: only a new session may count past them.
            self.shut()
            self._renew()


def ending(entry: Entry, error: WhimbrelError) -> bytes:
    """Said in place of an event that the ledger can't take."""
    said = f"an event of this run can't be recorded: {error.message}"[:500]
    failed = m.Failed(Failure(Owner.SYSTEM, "event_refused", said))
    return codec.encode(failed, execution=entry.execution, epoch=entry.epoch)


def over(entry: Entry) -> m.Objection:
    """To the engine: what the ledger says of everything that comes after the end."""
    return m.Objection(0, m.Verdict.FENCED, entry.epoch + 1)
