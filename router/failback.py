"""Keeps in etcd who was lost and who is back since when, the same for every replica.

Runs beside the doors; reads the lookout's losses and the sessions, writes `/returns/{cluster}`.
Level-triggered: whichever replica notices first writes, a restart takes up what it finds.
"""

import asyncio
import logging
import math
import time
from collections.abc import Callable

from router import clusters as keys
from router.clusters import encode, return_from
from router.etcd import Etcd, EtcdDown, LeaseGone
from router.inventory import Inventory
from router.lookout import Lookout
from router.returns import Loss, Return, Terms, lost, remembered_seconds, returned

log = logging.getLogger(__name__)


class FailBack:
    """`tick` seconds between two looks; `wall` Unix time in nanoseconds."""

    def __init__(
        self,
        etcd: Etcd,
        inventory: Inventory,
        lookout: Lookout,
        *,
        terms: Terms,
        tick: float,
        wall: Callable[[], int] = time.time_ns,
    ) -> None:
        self._etcd = etcd
        self._inventory = inventory
        self._lookout = lookout
        self._terms = terms
        self._tick = tick
        self._wall = wall
        self._losses: dict[str, Loss] = {}

    async def run(self) -> None:
        """For ever."""
        while True:
            await self.look()
            await asyncio.sleep(self._tick)

    async def look(self) -> None:
        inventory = self._inventory
        if not inventory.current:
            return
        # Kept until the cluster is back and that is noted: etcd may be away just then.
        for one in self._lookout.members.losses:
            self._losses[one.cluster] = Loss(one.cluster, one.cluster_epoch, one.since_ns)
        try:
            for cluster in sorted(self._losses.keys() | inventory.returns.keys()):
                await self._settle(cluster)
        except (EtcdDown, LeaseGone) as cause:
            log.warning("a loss or a return could not be noted, it is tried again: %s", cause)

    async def _settle(self, cluster: str) -> None:
        known = self._inventory.returns.get(cluster)
        if cluster not in self._inventory.registrations:
            self._losses.pop(cluster, None)
            if known is not None:
                await self._etcd.swap(keys.RETURNS + cluster, None, expected=encode(known))
        elif self._next(cluster, known) is not None:
            await self._write(cluster)
        elif cluster in self._inventory.sessions:
            self._losses.pop(cluster, None)

    def _next(self, cluster: str, before: Return | None) -> Return | None:
        loss = self._losses.get(cluster)
        session = self._inventory.sessions.get(cluster)
        if session is None:
            return lost(before, loss, self._terms) if loss and loss.cluster_epoch else None
        return returned(
            before,
            session.cluster_epoch,
            loss=loss,
            now_ns=self._wall(),
            terms=self._terms,
        )

    async def _write(self, cluster: str) -> None:
        """While it is away the record waits without a lease: a loss of any length is one."""
        key = keys.RETURNS + cluster
        raw = await self._etcd.get(key)
        record = self._next(cluster, None if raw is None else return_from(raw))
        if record is None:
            return  # another replica was faster, and the watch is on its way
        lease = 0
        if record.back_epoch:
            seconds = math.ceil(remembered_seconds(record, self._terms))
            lease = (await self._etcd.grant(max(seconds, 2))).id
        swap = await self._etcd.swap(key, encode(record), expected=raw, lease=lease)
        if not swap.done:
            if lease:
                await self._etcd.revoke(lease)
            return
        log.info(
            "back: nothing new for %g s, then more and more for %g s" if record.back_epoch
            else "lost: once it is back, nothing new for %g s, then more and more for %g s",
            record.quarantine,
            record.ramp,
            extra={"cluster": cluster, "cluster_epoch": record.back_epoch or record.cluster_epoch},
        )  # fmt: skip
