"""etcd as the router needs it, in memory: compare-and-set, leases on the loop's clock, a watch.

Stands in for `router.etcd.Etcd` in a simulation; can be away, and can lose everything.
"""

import asyncio
import itertools
from collections.abc import AsyncIterator

from router.etcd import Change, Cut, Deleted, Entry, EtcdDown, Lease, LeaseGone, Listed, Put, Swap

TICK = 0.05


class SimulatedEtcd:
    def __init__(self) -> None:
        self.away = False
        self._values: dict[str, tuple[bytes, int]] = {}
        self._leases: dict[int, tuple[float, float]] = {}
        self._ids = itertools.count(1)
        self._watchers: dict[asyncio.Queue[Change | None], str] = {}

    async def run(self) -> None:
        """For ever: keys go with their leases."""
        while True:
            await asyncio.sleep(TICK)
            now = asyncio.get_running_loop().time()
            if self.away:
                continue
            for lease in [one for one, (until, _) in self._leases.items() if until <= now]:
                self._end(lease)

    def lose_sight(self) -> None:
        self.away = True
        for queue in self._watchers:
            queue.put_nowait(None)

    def come_back(self, *, empty: bool = False) -> None:
        """A new leader gives every lease its whole time again."""
        now = asyncio.get_running_loop().time()
        if empty:
            self._values.clear()
            self._leases.clear()
        self._leases = {one: (now + ttl, ttl) for one, (_, ttl) in self._leases.items()}
        self.away = False

    def _here(self) -> None:
        if self.away:
            raise EtcdDown("etcd does not answer")

    async def _reach(self) -> None:
        await asyncio.sleep(0.002)
        self._here()

    async def get(self, key: str, *, timeout: float | None = None) -> bytes | None:
        await self._reach()
        found = self._values.get(key)
        return None if found is None else found[0]

    async def swap(
        self, key: str, value: bytes | None, *, expected: bytes | None, lease: int = 0
    ) -> Swap:
        await self._reach()
        found = self._values.get(key)
        stored = None if found is None else found[0]
        if stored != expected:
            return Swap(False, stored)
        if value is None:
            self._delete(key)
        else:
            self._set(key, value, lease)
        return Swap(True, value)

    async def put(self, key: str, value: bytes, *, lease: int = 0) -> None:
        await self._reach()
        self._set(key, value, lease)

    async def grant(self, ttl: int) -> Lease:
        await self._reach()
        lease = next(self._ids)
        self._leases[lease] = (asyncio.get_running_loop().time() + ttl, float(ttl))
        return Lease(lease, float(ttl))

    async def keep_alive(self, lease: int, *, timeout: float) -> float:
        await self._reach()
        if lease not in self._leases:
            return 0.0
        ttl = self._leases[lease][1]
        self._leases[lease] = (asyncio.get_running_loop().time() + ttl, ttl)
        return ttl

    async def revoke(self, lease: int) -> None:
        await self._reach()
        self._end(lease)

    async def list(self, prefix: str) -> list[Entry]:
        await self._reach()
        return [Entry(key, value) for key, (value, _) in self._values.items()
                if key.startswith(prefix)]  # fmt: skip

    async def follow(self, prefix: str) -> AsyncIterator[Change]:
        while True:
            if self.away:
                await asyncio.sleep(TICK)
                continue
            queue: asyncio.Queue[Change | None] = asyncio.Queue()
            self._watchers[queue] = prefix
            try:
                yield Listed([Entry(key, value) for key, (value, _) in self._values.items()])
                while (change := await queue.get()) is not None:
                    yield change
                yield Cut()
            finally:
                del self._watchers[queue]

    def _set(self, key: str, value: bytes, lease: int) -> None:
        if lease and lease not in self._leases:
            raise LeaseGone("requested lease not found")
        self._values[key] = (value, lease)
        self._tell(key, Put(Entry(key, value)))

    def _delete(self, key: str) -> None:
        if self._values.pop(key, None) is not None:
            self._tell(key, Deleted(key))

    def _tell(self, key: str, change: Change) -> None:
        for queue, prefix in self._watchers.items():
            if key.startswith(prefix):
                queue.put_nowait(change)

    def _end(self, lease: int) -> None:
        self._leases.pop(lease, None)
        for key in [one for one, (_, of) in self._values.items() if of == lease]:
            self._delete(key)
