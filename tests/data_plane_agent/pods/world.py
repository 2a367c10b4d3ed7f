"""A cluster in memory that behaves as one: names are taken, deletes want the uid, watches tell.

`PodWorld` has the methods of `PodApi`; tests play kubelet and node controller. `World` is a
launcher over it, with a real store.
"""

import asyncio
import copy
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from whimbrel.spec import Interface, Resources, TaskSpec

from data_plane_agent.launcher import Attempt, AttemptEvent, AttemptKey, Broke, Finished
from data_plane_agent.pods.api import ApiDown, ApiError, Page, Taken
from data_plane_agent.pods.clock import Clock
from data_plane_agent.pods.codec import pod_name
from data_plane_agent.pods.launcher import PodLauncher
from data_plane_agent.pods.settings import PodSettings
from tests.data_plane_agent.pods.parts import Region, region

DEADLINE = 10.0
NOTHING_SAID = Resources()


def stamp(ns: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(ns / 1e9))


def node(name: str, *, ready: str = "True", cpu: str = "4") -> dict[str, Any]:
    return {
        "metadata": {"name": name, "uid": f"uid-{name}"},
        "spec": {},
        "status": {
            "allocatable": {"cpu": cpu, "memory": "8Gi"},
            "conditions": [{"type": "Ready", "status": ready}],
        },
    }


class PodWorld:
    """`refuse` are errors by verb, each for one call; `lost` are calls that are done and not
    answered; `down` makes the API server silent."""

    namespace = "whimbrel"

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, dict[str, Any]]] = {"pods": {}, "nodes": {}}
        self.refuse: dict[str, list[ApiError]] = {}
        self.lost: dict[str, int] = {}
        self.calls: list[tuple[str, str]] = []
        self.logs: dict[str, bytes] = {}
        self.down = False
        self.answers = asyncio.Event()
        """Creates are answered only when it is set."""
        self.answers.set()
        self._version = 0
        self._history: list[tuple[int, str, str, dict[str, Any]]] = []
        self._watches: list[tuple[str, asyncio.Queue[Any]]] = []
        for name in ("n1", "n2"):
            self.put("nodes", node(name))

    @property
    def pods(self) -> dict[str, dict[str, Any]]:
        return self.objects["pods"]

    # -- the cluster's own doings -----------------------------------------------------------------

    def put(self, resource: str, item: dict[str, Any]) -> None:
        self._version += 1
        item["metadata"]["resourceVersion"] = str(self._version)
        name = item["metadata"]["name"]
        kind = "MODIFIED" if name in self.objects[resource] else "ADDED"
        self.objects[resource][name] = item
        self._tell(resource, kind, item)

    def remove(self, resource: str, name: str) -> None:
        self._version += 1
        item = self.objects[resource].pop(name)
        item["metadata"]["resourceVersion"] = str(self._version)
        self._tell(resource, "DELETED", item)

    def change(self, name: str, **status: Any) -> None:
        pod = copy.deepcopy(self.pods[name])
        pod["status"] |= status
        self.put("pods", pod)

    def run(self, name: str, host: str = "n1") -> None:
        pod = copy.deepcopy(self.pods[name])
        pod["spec"]["nodeName"] = host
        state = {"running": {"startedAt": stamp(time.time_ns())}}
        pod["status"] = {
            "phase": "Running",
            "containerStatuses": [{"name": "task", "state": state}],
        }
        self.put("pods", pod)

    def end(
        self, name: str, message: Any = "", *, code: int = 0, reason: str = "", **more: Any
    ) -> None:
        now = stamp(time.time_ns())
        text = message if isinstance(message, str) else json.dumps(message)
        state = {"exitCode": code, "reason": reason, "message": text, "startedAt": now,
                 "finishedAt": now}  # fmt: skip
        self.change(
            name,
            phase="Failed" if code else "Succeeded",
            containerStatuses=[{"name": "task", "state": {"terminated": state}}],
            **more,
        )

    def wait_for(self, name: str, reason: str, message: str = "", **more: Any) -> None:
        state = {"waiting": {"reason": reason, "message": message}}
        self.change(name, containerStatuses=[{"name": "task", "state": state}], **more)

    def go_down(self) -> None:
        self.down = True
        self.break_watches(ApiDown("connection refused"))

    def go_deaf(self) -> None:
        """Watches that tell nothing any more, and do not end."""
        self._watches.clear()

    def break_watches(self, error: ApiError) -> None:
        for _, queue in self._watches:
            queue.put_nowait(error)

    def _tell(self, resource: str, kind: str, item: dict[str, Any]) -> None:
        self._history.append((self._version, resource, kind, copy.deepcopy(item)))
        for watched, queue in self._watches:
            if watched == resource:
                queue.put_nowait((kind, copy.deepcopy(item)))

    # -- what a PodApi does -----------------------------------------------------------------------

    async def _call(self, verb: str, name: str = "") -> None:
        self.calls.append((verb, name))
        await asyncio.sleep(0)
        if self.down:
            raise ApiDown("connection refused")
        if self.refuse.get(verb):
            raise self.refuse[verb].pop(0)

    def _answered(self, verb: str) -> None:
        if self.lost.get(verb):
            self.lost[verb] -= 1
            raise ApiDown("timed out")

    async def create(self, manifest: dict[str, Any]) -> dict[str, Any]:
        name = manifest["metadata"]["name"]
        await self._call("create", name)
        if name in self.pods:
            raise Taken(f"{name} already exists")
        pod = copy.deepcopy(manifest)
        pod["metadata"] |= {
            "uid": f"uid-{self._version}",
            "creationTimestamp": stamp(time.time_ns()),
        }
        pod["status"] = {"phase": "Pending"}
        self.put("pods", pod)
        await self.answers.wait()
        self._answered("create")
        return copy.deepcopy(pod)

    async def get(self, name: str) -> dict[str, Any] | None:
        await self._call("get", name)
        return copy.deepcopy(self.pods.get(name))

    async def delete(self, name: str, *, uid: str, grace_seconds: int | None = None) -> None:
        await self._call("delete", name)
        pod = self.pods.get(name)
        if pod is None or pod["metadata"]["uid"] != uid:
            return
        if pod["status"]["phase"] == "Running" and grace_seconds != 0:
            pod = copy.deepcopy(pod)
            pod["metadata"]["deletionTimestamp"] = stamp(time.time_ns())
            self.put("pods", pod)
        else:
            self.remove("pods", name)
        self._answered("delete")

    async def list(self, resource: Any, **_: Any) -> Page:
        await self._call(f"list {resource}")
        return Page(copy.deepcopy(list(self.objects[resource].values())), str(self._version))

    async def watch(
        self, resource: Any, *, resource_version: str, **_: Any
    ) -> AsyncGenerator[tuple[str, dict[str, Any]]]:
        queue: asyncio.Queue[Any] = asyncio.Queue()
        for version, changed, kind, item in self._history:
            if changed == resource and version > int(resource_version):
                queue.put_nowait((kind, copy.deepcopy(item)))
        self._watches.append((resource, queue))
        try:
            await self._call(f"watch {resource}")
            while True:
                told = await queue.get()
                if isinstance(told, ApiError):
                    raise told
                yield told
        finally:
            if (resource, queue) in self._watches:
                self._watches.remove((resource, queue))

    async def log(
        self, name: str, *, follow: bool, limit_bytes: int | None = None
    ) -> AsyncIterator[bytes]:
        await self._call("log", name)
        yield self.logs.get(name, b"")
        if follow:
            await asyncio.Event().wait()

    async def may(self, *_: Any, **__: Any) -> bool:
        return True

    async def whoami(self) -> str:
        return "tests"

    async def healthy(self) -> None:
        await self._call("healthy")

    async def close(self) -> None:
        pass


def attempt(
    node: str = "n",
    number: int = 1,
    *,
    requests: Resources = NOTHING_SAID,
    limits: Resources = NOTHING_SAID,
    avoid: tuple[str, ...] = (),
    epoch: int = 7,
    **task: Any,
) -> Attempt:
    spec = TaskSpec(node, f"flow:{node}", "b" * 64, Interface(), **task)
    key = AttemptKey("p/d/run", node, number, epoch)
    return Attempt(key, spec, {"x": 1}, f"digest of {node}", "p", "d", requests, limits, 60.0,
                   avoid=avoid)  # fmt: skip


def done(value: str = '{"o0":1}', **more: Any) -> dict[str, Any]:
    return {"t": "done", "d": "digest of n", "s": 1, "e": 2, "value": value, "digest": "v",
            "artifacts": [], "offloaded": None, "stdout": None, "stderr": None, **more}  # fmt: skip


def broke(owner: str = "user", kind: str = "raised") -> dict[str, Any]:
    return {"t": "broke", "d": "digest of n", "s": 1, "e": 2, "owner": owner, "kind": kind,
            "message": "said so", "tb": "", "unreadable": [], "stdout": None}  # fmt: skip


def settings(**more: Any) -> PodSettings:
    return PodSettings("alpha", "us-east", "whimbrel", "task:1", **({"linger_seconds": 0.0} | more))


class World:
    """`now` is the launcher's clock; its sleeps last 10 ms."""

    def __init__(self, folder: Path, store: Region, **more: Any) -> None:
        self.folder = folder
        self.store = store
        self.api = PodWorld()
        self.settings = settings(**more)
        self.now = 1000.0
        self.launcher: PodLauncher
        self.batches: AsyncIterator[Sequence[AttemptEvent]]
        self.told: list[AttemptEvent] = []
        self.ended: list[AttemptKey] = []

    async def open(self) -> None:
        self.launcher = PodLauncher(
            self.api,  # pyright: ignore[reportArgumentType]
            self.store.orders,
            self.store.blobs,
            self.settings,
            data_dir=self.folder / "agent",
            clock=Clock(now=lambda: self.now, sleep=_soon),
        )
        await self.launcher.open()
        self.batches = self.launcher.watch()

    async def restart(self) -> None:
        """As after a SIGKILL: nothing but the disk and the cluster is left."""
        await self.launcher.close(kill=False)
        self.told.clear()
        self.ended.clear()
        await self.open()

    async def start(self, *attempts: Attempt) -> str:
        """The name of the first one's pod, once all are there."""
        await self.launcher.start(attempts)
        names = [pod_name(one.key) for one in attempts]
        await self.until(lambda: all(name in self.api.pods for name in names))
        return names[0]

    async def hear(self) -> AttemptEvent:
        """What was heard before is on disk by then."""
        while not self.told:
            self.launcher.taken(self.ended)
            async with asyncio.timeout(DEADLINE):
                self.told += await anext(self.batches)
            self.ended = [one.key for one in self.told if isinstance(one, Finished | Broke)]
        return self.told.pop(0)

    async def until(self, true: Any) -> None:
        async with asyncio.timeout(DEADLINE):
            while not true():
                await asyncio.sleep(0.005)

    async def quiet(self) -> None:
        """Long enough for several looks, and nothing was told."""
        await asyncio.sleep(0.1)
        assert not self.told
        assert not len(self.launcher._news)


async def _soon(seconds: float) -> None:
    await asyncio.sleep(0.01 if seconds else 0)


@asynccontextmanager
async def world(folder: Path, **more: Any) -> AsyncIterator[World]:
    with region(folder) as store:
        made = World(folder, store, **more)
        await made.open()
        try:
            yield made
        finally:
            await made.launcher.close(kill=False)
