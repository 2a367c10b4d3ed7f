"""The record of losses and returns in etcd: who writes it, when, and under which lease."""

from typing import Any

import pytest

from router.clusters import Session, return_from
from router.etcd import Deleted, Entry, EtcdDown, Lease, Put, Swap
from router.failback import FailBack
from router.inventory import Inventory
from router.lookout import Lookout
from router.membership import Absence
from router.returns import SECOND, Return, Terms
from tests.router.test_inventory import WHOLE, entry

pytestmark = pytest.mark.anyio
TERMS = Terms(quarantine=30, ramp=60)
KEY = "/returns/east"


class Store:
    """etcd, as far as it is asked; its watch reaches the replica before the call returns."""

    def __init__(self, *inventories: Inventory) -> None:
        self.away = False
        self.values: dict[str, tuple[bytes, int]] = {}
        self.leases: dict[int, int] = {}
        self.inventories = inventories

    async def get(self, key: str) -> bytes | None:
        if self.away:
            raise EtcdDown("away")
        return self.values[key][0] if key in self.values else None

    async def grant(self, ttl: int) -> Lease:
        self.leases[len(self.leases) + 1] = ttl
        return Lease(len(self.leases), ttl)

    async def revoke(self, lease: int) -> None:
        del self.leases[lease]

    async def swap(
        self, key: str, value: bytes | None, *, expected: bytes | None, lease: int = 0
    ) -> Swap:
        stored = await self.get(key)
        if stored != expected:
            return Swap(False, stored)
        if value is None:
            del self.values[key]
        else:
            self.values[key] = (value, lease)
        for inventory in self.inventories:
            inventory.apply(Deleted(key) if value is None else Put(Entry(key, value)))
        return Swap(True, value)


class Replica:
    def __init__(self) -> None:
        self.inventory = Inventory()
        self.inventory.apply(WHOLE)
        nobody: Any = None
        self.lookout = Lookout(nobody, self.inventory, nobody, ttl=2, clock=lambda: 0.0)

    def judges(self, *losses: Absence) -> None:
        members = self.lookout.members
        absent = {loss.cluster: loss for loss in losses}
        self.lookout.members = type(members)(ttl=2, stall=1, absent=absent)


class World:
    def __init__(self, replicas: int = 1) -> None:
        self.now = 1_000.0
        self.replicas = [Replica() for _ in range(replicas)]
        self.etcd = Store(*(one.inventory for one in self.replicas))
        etcd: Any = self.etcd
        self.failbacks = [
            FailBack(
                etcd,
                one.inventory,
                one.lookout,
                terms=TERMS,
                tick=1,
                wall=lambda: round(self.now * SECOND),
            )
            for one in self.replicas
        ]

    async def look(self) -> None:
        for failback in self.failbacks:
            await failback.look()

    async def loses(self, epoch: int) -> None:
        for one in self.replicas:
            one.inventory.apply(Deleted("/sessions/east"))
            one.judges(Absence("east", epoch, round(self.now * SECOND), judged=True))
        await self.look()

    async def comes_back(self, epoch: int) -> None:
        session = Session("east", "s", epoch, "i", 7, "host:1", "t")
        for one in self.replicas:
            one.inventory.apply(Put(entry("/sessions/east", session)))
            one.judges()
        await self.look()

    @property
    def record(self) -> Return | None:
        return return_from(self.etcd.values[KEY][0]) if KEY in self.etcd.values else None


async def test_a_loss_waits_without_a_lease_and_a_return_ends_by_itself() -> None:
    world = World()
    await world.loses(2)
    assert world.etcd.values[KEY][1] == 0, "a loss may last for days"
    await world.comes_back(3)
    record = world.record
    assert record is not None
    assert (record.cluster_epoch, record.back_epoch, record.back_ns) == (2, 3, 1_000 * SECOND)
    assert world.etcd.leases[world.etcd.values[KEY][1]] == 600, "it also counts the losses"


async def test_a_further_loss_takes_the_record_off_its_lease() -> None:
    world = World()
    for epoch in (2, 3, 4):
        await world.loses(epoch)
        assert world.etcd.values[KEY][1] == 0
        await world.comes_back(epoch + 1)
    assert world.record is not None
    assert (len(world.record.losses), world.record.quarantine) == (3, 60)


async def test_replicas_note_one_loss_once() -> None:
    world = World(replicas=3)
    await world.loses(2)
    await world.comes_back(3)
    world.now += 100
    await world.look()
    assert world.record is not None
    assert len(world.record.losses) == 1
    assert world.record.back_ns == 1_000 * SECOND
    assert len(world.etcd.leases) == 1


async def test_a_first_session_and_a_planned_restart_are_not_held_back() -> None:
    world = World()
    await world.comes_back(3)  # while the session before it still stood
    assert world.record is None
    await world.loses(0)  # registered, and no agent yet
    await world.comes_back(1)
    assert world.record is None


async def test_a_router_that_started_after_the_loss() -> None:
    world = World(replicas=2)
    await world.loses(0)
    await world.comes_back(5)
    assert world.record is not None
    assert (world.record.cluster_epoch, world.record.back_epoch) == (4, 5)
    assert len(world.record.losses) == 1, "both replicas judged it"


async def test_what_etcd_did_not_take_is_tried_again() -> None:
    world = World()
    world.etcd.away = True
    await world.loses(2)
    await world.comes_back(3)
    assert world.record is None
    world.etcd.away = False
    await world.look()
    assert world.record is not None
    assert (world.record.cluster_epoch, world.record.back_epoch) == (2, 3)


async def test_who_is_not_registered_any_more_is_forgotten() -> None:
    world = World()
    await world.loses(2)
    world.replicas[0].inventory.apply(Deleted("/registrations/east"))
    await world.look()
    assert world.record is None


async def test_an_old_view_decides_nothing() -> None:
    world = World()
    world.replicas[0].inventory.current = False
    await world.loses(2)
    assert world.record is None
