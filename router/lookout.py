"""The eyes behind the membership: is etcd there, is the control plane there, who has a session?

Runs beside the doors; feeds `membership.observe` at every tick and reports each loss to the
control plane until the cluster has a new session. The report may be repeated without harm.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Protocol

from whimbrel.errors import WhimbrelError

from router.etcd import Etcd, EtcdDown
from router.inventory import Inventory
from router.membership import Absence, Membership, Observation, observe
from router.metrics import Metrics

log = logging.getLogger(__name__)

HEALTH_SECONDS = 1.0
"""Between two looks at the control plane. Longer misses short outages, in which an agent could not
say Hello; shorter only costs calls."""
REPORT_SECONDS = 3.0
"""Between two reports of the same loss. Shorter asks SQL for nothing, longer delays a failover
whose first report was not heard."""


class ControlPlane(Protocol):
    async def serving(self, *, timeout: float) -> bool: ...
    async def report_lost(self, cluster: str, *, cluster_epoch: int, since_ns: int) -> None: ...


class Lookout:
    """`clock` counts seconds and never goes back."""

    def __init__(
        self,
        etcd: Etcd,
        inventory: Inventory,
        control_plane: ControlPlane,
        *,
        ttl: float,
        clock: Callable[[], float],
        metrics: Metrics | None = None,
    ) -> None:
        self._etcd = etcd
        self._inventory = inventory
        self._control_plane = control_plane
        self._ttl = ttl
        self._clock = clock
        self._metrics = metrics or Metrics()
        self._tick = ttl / 20
        self._etcd_answers = True
        self._control_plane_answers = False
        self._outages = 0
        self._news = asyncio.Event()
        self.members = Membership(ttl=ttl, stall=ttl / 2)

    def suspected(self, cluster: str) -> bool:
        return self.members.suspected(cluster)

    def absence(self, cluster: str) -> Absence | None:
        return self.members.absent.get(cluster)

    async def watch_etcd(self) -> None:
        """For ever. A frozen etcd lets leases run out without breaking the watch, so it is asked
        often enough to notice within half a TTL."""
        while True:
            try:
                await self._etcd.get("/probe", timeout=self._ttl / 4)
                self._etcd_answers = True
            except EtcdDown:
                self._etcd_answers = False
                self._outages += 1
            await asyncio.sleep(self._ttl / 8)

    async def watch_control_plane(self) -> None:
        """For ever."""
        while True:
            answers = await self._control_plane.serving(timeout=HEALTH_SECONDS)
            if answers != self._control_plane_answers:
                log.info("the control plane %s", "answers" if answers else "does not answer")
            self._control_plane_answers = answers
            if not answers:
                self._outages += 1
            await asyncio.sleep(HEALTH_SECONDS)

    async def judge(self) -> None:
        """For ever: an observation a tick."""
        while True:
            self.look()
            await asyncio.sleep(self._tick)

    def look(self) -> None:
        inventory = self._inventory
        before = {loss.cluster for loss in self.members.losses}
        self.members = observe(
            self.members,
            Observation(
                at=self._clock(),
                wall_ns=time.time_ns(),
                hearing=inventory.current and self._etcd_answers and self._control_plane_answers,
                outages=self._outages + inventory.outages,
                sessions={
                    name: session.cluster_epoch for name, session in inventory.sessions.items()
                },
                registered=frozenset(inventory.registrations),
            ),
        )
        for loss in self.members.losses:
            if loss.cluster not in before:
                log.warning(
                    "suspected: its session is over",
                    extra={"cluster": loss.cluster, "cluster_epoch": loss.cluster_epoch},
                )
                # Of a session: a cluster that nobody has seen yet loses nothing.
                if loss.cluster_epoch:
                    self._metrics.lost()
                self._news.set()

    async def report(self) -> None:
        """For ever: every loss whose session was seen, at once and then again and again."""
        while True:
            try:
                async with asyncio.timeout(REPORT_SECONDS):
                    await self._news.wait()
            except TimeoutError:
                pass
            self._news.clear()
            for loss in self.members.losses:
                # Of a session from before this replica's start the control plane knows more: it
                # compares the snapshot with its rows.
                if loss.cluster_epoch and loss.cluster in self._inventory.registrations:
                    await self._report(loss)

    async def _report(self, loss: Absence) -> None:
        try:
            await self._control_plane.report_lost(
                loss.cluster, cluster_epoch=loss.cluster_epoch, since_ns=loss.since_ns
            )
        except WhimbrelError as error:
            log.warning(
                "a loss could not be reported: %s", error.message, extra={"cluster": loss.cluster}
            )
