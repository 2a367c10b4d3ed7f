"""A pod launcher with all that is around it, in memory and in virtual time: a cluster, the
region's store, an engine that takes down what it is told.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from whimbrel.runtime_store import StoreFull, UnreadableInput, address
from whimbrel.spec import Artifact, Interface, Resources, TaskSpec, sha256

from data_plane_agent.blobs import Blobs, Entry
from data_plane_agent.launcher import Attempt, AttemptEvent, AttemptKey, Broke, Finished, Found
from data_plane_agent.pods.api import PodApi
from data_plane_agent.pods.clock import Clock
from data_plane_agent.pods.codec import pod_name
from data_plane_agent.pods.launcher import PodLauncher
from data_plane_agent.pods.orders import Order, Orders
from data_plane_agent.pods.settings import PodSettings
from tests.data_plane_agent.pods.cluster_fake import FakeCluster, now_ns
from tests.data_plane_agent.virtual_time import until

SETTINGS = PodSettings(
    cluster="alpha",
    region="us-east",
    namespace="whimbrel",
    image="whimbrel:1",
    secrets={"token": "vault/key"},
)
TASK = TaskSpec("n", "flow:f", "b" * 64, Interface())


def attempt(number: int = 1, *, node: str = "n", epoch: int = 1, **more: Any) -> Attempt:
    inputs = more.pop("inputs", {"x": 1})
    key, none = AttemptKey("run", node, number, epoch), Resources()
    made = Attempt(key, TASK, inputs, sha256(repr(inputs).encode()), "p", "d", none, none, 60.0)
    return replace(made, **more)


def done(one: Attempt, **more: Any) -> str:
    said = {"t": "done", "d": one.input_digest, "s": 1, "e": 2, "value": "{}", "digest": "dd"}
    return json.dumps({**said, "artifacts": [], "offloaded": None, "stdout": None, **more})


class MemoryBlobs:
    """`away`: no answer at all; `full`: nothing is taken."""

    root, region = "s3://bucket", "us-east"

    def __init__(self) -> None:
        self.objects: dict[str, tuple[bytes, float]] = {}
        self.away = self.full = False

    async def put(self, key: str, data: bytes | Path, *, kind: str = "file") -> Artifact:
        await asyncio.sleep(0.001)
        if self.away or self.full:
            raise StoreFull("the store takes nothing")
        content = data.read_bytes() if isinstance(data, Path) else data
        uri = address(self.root, key)
        self.objects[uri] = (content, now_ns() / 1e9)
        return Artifact(uri, sha256(content), len(content), self.region, kind)

    async def get(self, uri: str) -> bytes:
        await asyncio.sleep(0.001)
        if self.away:
            raise UnreadableInput(uri, "the store is away")
        if uri not in self.objects:
            raise UnreadableInput(uri, "not there") from FileNotFoundError(uri)
        return self.objects[uri][0]

    async def size(self, uri: str) -> int:
        return len(await self.get(uri))

    async def entries(self, prefix: str) -> AsyncIterator[Sequence[Entry]]:
        if self.away:
            raise UnreadableInput(prefix, "the store is away")
        under = address(self.root, prefix)
        found = [(u, d) for u, d in self.objects.items() if u.startswith(under)]
        yield [Entry(uri, len(data), at) for uri, (data, at) in found]

    async def delete(self, uris: Sequence[str]) -> None:
        for uri in uris:
            self.objects.pop(uri, None)

    async def sign(self, method: str, uris: Iterable[str], *, seconds: float) -> dict[str, str]:
        asked = list(uris)
        if strange := [uri for uri in asked if not uri.startswith(self.root + "/")]:
            raise UnreadableInput(strange[0], "it is in no store that this region has keys of")
        return {uri: f"{uri}?{method}" for uri in asked}

    def holds(self, uri: str, *, below: str) -> bool:
        return uri.startswith(f"{self.root}/{below}/")

    async def refuse_for_pods(self) -> None:
        pass


class Session:
    """Implements `Renewal`. `left` seconds from each question on, 0 = it is in doubt."""

    def __init__(self) -> None:
        self.left = 5.0

    def until_ns(self) -> int:
        return boot_ns() + int(self.left * 1e9) if self.left else 0


def boot_ns() -> int:
    """CLOCK_BOOTTIME, as the virtual loop has it."""
    return int(asyncio.get_running_loop().time() * 1e9)


class Scene:
    """`told` is what the engine of the present launcher was told after Found; while `busy` it asks
    for no more."""

    def __init__(self, folder: Path, settings: PodSettings) -> None:
        self.folder, self.settings = folder, settings
        self.session = Session()
        self.cluster, self.blobs = FakeCluster(), MemoryBlobs()
        (folder / "bundle.tar").write_bytes(b"code")
        self.found: dict[AttemptKey, str] | None = None
        self.told: list[AttemptEvent] = []
        self.busy = False
        self.launcher, self.orders = self._launcher()
        self._engine: asyncio.Task[None] | None = None

    def _launcher(self) -> tuple[PodLauncher, Orders]:
        async def fetch(digest: str) -> Path:
            return self.folder / "bundle.tar"

        blobs = cast(Blobs, self.blobs)
        orders = Orders(blobs, cluster="alpha", fetch_archive=fetch, clock_ns=now_ns)
        clock = Clock(asyncio.get_running_loop().time, now_ns, boot_ns)
        api = cast(PodApi, self.cluster)
        made = PodLauncher(
            api,
            orders,
            blobs,
            self.settings,
            data_dir=self.folder,
            renewal=self.session,
            clock=clock,
        )
        return made, orders

    async def open(self, *, wait: bool = True) -> None:
        await self.launcher.open()
        self._engine = asyncio.create_task(self.listen())
        if wait:
            await until(lambda: self.found is not None)

    async def listen(self) -> None:
        async for batch in self.launcher.watch():
            for event in batch:
                if isinstance(event, Found):
                    self.found = dict(event.running)
                else:
                    self.told.append(event)
            while self.busy:
                await asyncio.sleep(0.1)
            self.launcher.taken([one.key for one in batch if isinstance(one, Finished | Broke)])

    async def stop(self) -> None:
        """Nothing of it happens any more, as after SIGKILL."""
        assert self._engine is not None
        self._engine.cancel()
        (broken,) = await asyncio.gather(self._engine, return_exceptions=True)
        await self.launcher.close(kill=False)
        assert isinstance(broken, asyncio.CancelledError), broken

    async def restart(self) -> None:
        await self.stop()
        self.found, self.told, self.busy = None, [], False
        self.launcher, self.orders = self._launcher()
        await self.open()

    async def start(self, *attempts: Attempt) -> str:
        """Until the pod of the first is there: its name."""
        await self.launcher.start(attempts)
        name = pod_name(attempts[0].key)
        await until(lambda: name in self.cluster.pods)
        return name

    async def runs(self, *attempts: Attempt) -> str:
        name = await self.start(*attempts)
        self.cluster.runs(name)
        await until(lambda: self.launcher.capacity().running)
        return name

    async def told_of(self, kind: type, *, seconds: float = 60.0) -> Any:
        """The newest of that kind."""
        await until(lambda: self.all(kind), seconds=seconds)
        return self.all(kind)[-1]

    def all(self, kind: Any) -> list[Any]:
        return [event for event in self.told if isinstance(event, kind)]

    @property
    def ends(self) -> list[AttemptEvent]:
        return self.all(Finished | Broke)

    async def order_of(self, one: Attempt) -> Order:
        """Another order for the very same."""
        return await self.orders.write(one, pod=pod_name(one.key))


@asynccontextmanager
async def scene(folder: Path, **settings: Any) -> AsyncIterator[Scene]:
    here = Scene(folder, replace(SETTINGS, **settings))
    await here.open()
    try:
        yield here
    finally:
        await here.stop()
