"""One key an execution: who is wished to run it, at which epoch; compared before every write.

Called by the `Assign`, `Unassign` and `SyncRegistrations` doors; writes etcd, which every replica
watches. An older epoch never replaces a newer one, and within an epoch `want` only rises.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace

from whimbrel.spec import Assignment, Want

from router import clusters as keys
from router.clusters import Registration, assignment_from, encode
from router.etcd import Etcd
from router.inventory import Inventory
from router.metrics import Metrics

AT_ONCE = 32
"""Writes in flight. Too few make a failover of thousands slow, too many delay heartbeats."""

_LEVEL = {Want.RUN: 1, Want.QUIESCE: 2, Want.CANCEL: 3}


@dataclass(frozen=True, slots=True)
class Written:
    """`stored_epoch` is what stood there when `written` is false."""

    written: bool
    stored_epoch: int


def merge(stored: Assignment | None, own: Assignment) -> Assignment | None:
    """What is to be written, None when `own` is refused: a newer epoch stands, or the same epoch
    stands for another cluster, which no fence can have said."""
    if stored is None or stored.epoch < own.epoch:
        return own
    if stored.epoch > own.epoch or stored.cluster != own.cluster:
        return None
    want = max(stored.want, own.want, key=_LEVEL.__getitem__)
    return replace(own, want=want, gate=max(stored.gate, own.gate))


class Assignments:
    def __init__(self, etcd: Etcd, inventory: Inventory, *, metrics: Metrics | None = None) -> None:
        self._etcd = etcd
        self._inventory = inventory
        self._metrics = metrics or Metrics()
        self._slots = asyncio.Semaphore(AT_ONCE)

    async def assign(self, assignments: Sequence[Assignment]) -> list[Written]:
        return self._counted(await asyncio.gather(*(self._assign(one) for one in assignments)))

    async def unassign(self, wishes: Sequence[tuple[str, int]]) -> list[Written]:
        """Deletes the keys of (execution, epoch), unless a newer epoch stands there."""
        return self._counted(await asyncio.gather(*(self._unassign(*wish) for wish in wishes)))

    def _counted(self, all_written: list[Written]) -> list[Written]:
        for one in all_written:
            self._metrics.wrote(written=one.written)
        return all_written

    async def sync(self, registrations: Sequence[Registration]) -> None:
        """Makes etcd's copy equal to `registrations`, writing only what differs."""
        wanted = {keys.REGISTRATIONS + one.name: encode(one) for one in registrations}
        there = {entry.key: entry.value for entry in await self._etcd.list(keys.REGISTRATIONS)}
        for key, value in wanted.items():
            if there.get(key) != value:
                await self._etcd.put(key, value)
        for key, value in there.items():
            if key not in wanted:
                await self._etcd.swap(key, None, expected=value)

    async def _assign(self, own: Assignment) -> Written:
        key = keys.ASSIGNMENTS + own.execution
        raw = self._remembered(own.execution)
        async with self._slots:
            while True:
                stored = None if raw is None else assignment_from(raw)
                wanted = merge(stored, own)
                if wanted is None:
                    # What is remembered may be old, but it only was lower: refusing is right.
                    return Written(False, stored.epoch if stored else 0)
                value = encode(wanted)
                swap = await self._etcd.swap(key, value, expected=raw)
                if swap.done or swap.stored == value:
                    return Written(True, wanted.epoch)
                raw = swap.stored

    async def _unassign(self, execution: str, epoch: int) -> Written:
        key = keys.ASSIGNMENTS + execution
        raw = self._remembered(execution)
        async with self._slots:
            while True:
                if raw is not None and (stored := assignment_from(raw)).epoch > epoch:
                    return Written(False, stored.epoch)
                swap = await self._etcd.swap(key, None, expected=raw)
                if swap.done or swap.stored is None:
                    return Written(True, epoch)
                raw = swap.stored

    def _remembered(self, execution: str) -> bytes | None:
        """A first guess that saves a round trip; the compare finds out when it is wrong."""
        known = self._inventory.assignments.get(execution)
        return None if known is None else encode(known)
