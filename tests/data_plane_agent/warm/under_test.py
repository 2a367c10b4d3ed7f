"""Warm pods as processes of this machine, with a real door, real code and a store over HTTP."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from textwrap import dedent
from typing import Any

from whimbrel.bundle import make_bundle
from whimbrel.spec import Failure, Interface, Owner, Resources, TaskSpec

from data_plane_agent.blobs import Blobs, StoreOptions
from data_plane_agent.launcher import Attempt, AttemptEvent, AttemptKey
from data_plane_agent.pods.orders import Orders
from data_plane_agent.warm.pool import PoolKey
from data_plane_agent.warm.pools import WarmPools
from data_plane_agent.warm.settings import WarmSettings
from data_plane_agent.warm.sight import NoPod, Sighted, Watcher
from tests.object_server import ObjectServer, object_server

LOST = Failure(Owner.SYSTEM, "node_lost", "its node is gone")
SETTINGS = WarmSettings("127.0.0.1", 0, "127.0.0.1", "us-east", grace_seconds=20)


@dataclass
class ProcessPods:
    """Implements `Pods`. It outlives the agent, as a cluster does."""

    folder: Path
    refuse: NoPod | None = None
    door_open: bool = True
    made: dict[str, Sighted] = field(default_factory=dict[str, Sighted])
    running: dict[str, asyncio.subprocess.Process] = field(
        default_factory=dict[str, asyncio.subprocess.Process]
    )
    failures: dict[str, Failure] = field(default_factory=dict[str, Failure])
    deleted: list[str] = field(default_factory=list[str])
    port: int = 0
    _watcher: Watcher | None = None
    _waits: set[asyncio.Task[None]] = field(default_factory=set["asyncio.Task[None]"])

    def may_run(self, attempt: Attempt) -> bool:
        return attempt.task.container_image != "forbidden"

    async def run(self, watcher: Watcher, *, port: int) -> None:
        self.port, self._watcher = port, watcher
        for sighted in list(self.made.values()):
            watcher.seen(sighted)
        watcher.listed()
        try:
            await asyncio.Event().wait()
        finally:
            self._watcher = None

    async def create(self, pool: PoolKey, *, name: str, token: str) -> str:
        if self.refuse is not None:
            raise self.refuse
        work, temporary = self.folder / name / "work", self.folder / name / "tmp"
        work.mkdir(parents=True)
        temporary.mkdir()
        seat = {
            "door": f"127.0.0.1:{self.port if self.door_open else 9}",
            "pool": pool.id,
            "pod": name,
            "empty": [str(temporary)],
            "orphan": 30,
        }
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",
            "-m",
            "whimbrel.runtime_warm",
            cwd=work,
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
                "TMPDIR": str(temporary),
                "WHIMBREL_WARM": json.dumps(seat),
                "WHIMBREL_WARM_TOKEN": token,
                **dict(pool.environment),
            },
        )
        sighted = Sighted(name, f"uid of {name}", pool, token, host="node-1")
        self.made[name], self.running[name] = sighted, process
        if self._watcher is not None:
            self._watcher.seen(sighted)
        task = asyncio.create_task(self._bury(name, process))
        self._waits.add(task)
        return sighted.uid

    async def delete(self, name: str, uid: str) -> None:
        self.deleted.append(name)
        self.kill(name, signal.SIGTERM)

    def kill(self, name: str, number: int = signal.SIGKILL) -> None:
        process = self.running.get(name)
        if process is not None and process.returncode is None:
            process.send_signal(number)

    async def end(self) -> None:
        for name in list(self.running):
            self.kill(name)
        await asyncio.gather(*self._waits)

    async def _bury(self, name: str, process: asyncio.subprocess.Process) -> None:
        await process.wait()
        del self.made[name], self.running[name]
        if self._watcher is not None:
            self._watcher.gone(name, self.failures.get(name, LOST))


@dataclass
class Region:
    server: ObjectServer
    orders: Orders
    pods: ProcessPods
    digest: str
    folder: Path
    single: list[Attempt] = field(default_factory=list[Attempt])

    @asynccontextmanager
    async def agent(self, settings: WarmSettings = SETTINGS) -> AsyncIterator[WarmPools]:
        async def fall_back(attempts: Sequence[Attempt]) -> None:
            self.single.extend(attempts)

        port = self.pods.port or settings.port
        pools = WarmPools(self.pods, self.orders, replace(settings, port=port), fall_back=fall_back)
        await pools.open()
        try:
            yield pools
        finally:
            await pools.close(kill=False)

    def attempt(
        self,
        entry: str,
        *,
        node: str = "n",
        number: int = 1,
        inputs: Mapping[str, Any] | None = None,
        project: str = "p",
        timeout: float = 0.0,
        environment: Mapping[str, str] | None = None,
        image: str = "",
        warm: bool = True,
        cpu: float = 0.0,
    ) -> Attempt:
        nothing = Resources(cpu=cpu)
        task = TaskSpec(
            entry,
            f"flow:{entry}",
            self.digest,
            Interface(),
            environment=dict(environment or {}),
            container_image=image,
            warm=warm,
        )
        key = AttemptKey(f"{project}/d/run", node, number, 7)
        return Attempt(
            key, task, inputs or {}, f"digest {node}", project, "d", nothing, nothing, timeout
        )


@contextmanager
def region(folder: Path, source: str) -> Iterator[Region]:
    (folder / "code").mkdir()
    (folder / "code" / "flow.py").write_text(dedent(source))
    digest, archive = make_bundle(folder / "code")
    file = folder / "bundle.tar"
    file.write_bytes(archive)

    async def fetch(_digest: str) -> Path:
        return file

    with object_server() as server:
        blobs = Blobs(
            "s3://b", region="us-east", options=StoreOptions(server.url, "key", "secret12")
        )
        orders = Orders(blobs, cluster="alpha", fetch_archive=fetch, url_seconds=3600)
        yield Region(server, orders, ProcessPods(folder / "pods"), digest, folder)


Events = AsyncIterator[Sequence[AttemptEvent]]


async def until(events: Events, met: Callable[[list[AttemptEvent]], bool]) -> list[AttemptEvent]:
    """Everything that is told until it is enough."""
    seen: list[AttemptEvent] = []
    async with asyncio.timeout(30):
        while not met(seen):
            seen.extend(await anext(events))
    return seen


async def eventually(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.01)
