"""What makes the router deaf: an etcd that misses a probe, a control plane that is away."""

import asyncio
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from router.clusters import Registration, Session, encode
from router.etcd import Deleted, Entry, EtcdDown, Listed, Put
from router.inventory import Inventory
from router.lookout import Lookout
from router.metrics import Metrics

pytestmark = pytest.mark.anyio
TTL = 0.4
WHOLE = Listed(
    [
        Entry("/registrations/east", encode(Registration("east", "us"))),
        Entry("/sessions/east", encode(Session("east", "s", 2, "i", 7, "host:1", "t"))),
    ]
)


class Outside:
    """etcd and the control plane, as far as the lookout asks them."""

    def __init__(self) -> None:
        self.etcd_answers = True
        self.serves = True
        self.probes = 0

    async def get(self, key: str, *, timeout: float) -> None:
        self.probes += 1
        if not self.etcd_answers:
            raise EtcdDown("frozen")

    async def serving(self, *, timeout: float) -> bool:
        self.probes += 1
        return self.serves

    async def report_lost(self, cluster: str, *, cluster_epoch: int, since_ns: int) -> None: ...


class Watch:
    """A lookout with a clock that a test moves, and one of its watches run for a probe or two."""

    def __init__(self) -> None:
        self.now = 0.0
        self.outside = Outside()
        self.inventory = Inventory()
        self.inventory.apply(WHOLE)
        outside: Any = self.outside  # stands in for the two clients
        self.registry = CollectorRegistry()
        self.lookout = Lookout(
            outside,
            self.inventory,
            outside,
            ttl=TTL,
            clock=lambda: self.now,
            metrics=Metrics(self.registry),
        )

    @property
    def counted(self) -> float | None:
        return self.registry.get_sample_value("whimbrel_router_losses_judged_total")

    async def probe(self, watch: Any) -> None:
        before = self.outside.probes
        task = asyncio.create_task(watch())
        while self.outside.probes == before:  # one turn of the loop, no time
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def all_is_well(self) -> "Watch":
        await self.probe(self.lookout.watch_control_plane)
        await self.probe(self.lookout.watch_etcd)
        return self.goes_on(3 * TTL)

    def goes_on(self, seconds: float) -> "Watch":
        end = self.now + seconds
        while self.now < end:
            self.now += TTL / 10
            self.lookout.look()
        return self


async def test_a_session_that_ends_in_quiet_times() -> None:
    watch = await Watch().all_is_well()
    watch.inventory.apply(Deleted("/sessions/east"))
    assert watch.goes_on(TTL / 10).lookout.suspected("east")
    assert watch.goes_on(TTL).counted == 1, "a loss that stays is one"


async def test_a_cluster_without_an_agent_yet_is_no_loss() -> None:
    watch = await Watch().all_is_well()
    watch.inventory.apply(Put(Entry("/registrations/west", encode(Registration("west", "eu")))))
    assert watch.goes_on(TTL).lookout.suspected("west")
    assert watch.counted == 0


async def test_a_probe_that_etcd_missed_begins_the_quiet_period_anew() -> None:
    watch = await Watch().all_is_well()
    watch.outside.etcd_answers = False
    await watch.probe(watch.lookout.watch_etcd)
    watch.outside.etcd_answers = True
    await watch.probe(watch.lookout.watch_etcd)
    watch.inventory.apply(Deleted("/sessions/east"))
    assert not watch.goes_on(1.8 * TTL).lookout.suspected("east")
    assert watch.goes_on(0.5 * TTL).lookout.suspected("east")


async def test_nobody_is_judged_while_the_control_plane_is_away() -> None:
    watch = await Watch().all_is_well()
    watch.outside.serves = False
    await watch.probe(watch.lookout.watch_control_plane)
    watch.inventory.apply(Deleted("/sessions/east"))
    assert not watch.goes_on(9 * TTL).lookout.suspected("east")
    absence = watch.lookout.absence("east")
    assert absence is None or not absence.judged
