"""A cluster in memory with the manners of a real one: names are taken until a pod is really gone,
deletes ask for the uid, watches replay from a version, a deleted pod that runs ends first.

It has no scheduler and no kubelet: tests say what becomes of a pod, in Kubernetes' own words.
"""

import asyncio
import copy
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from typing import Any

from data_plane_agent.pods.api import ApiDown, ApiError, Denied, Expired, Missing, Page, Taken

Object = dict[str, Any]
EPOCH = 1_700_000_000
QUOTA = 'pods "x" is forbidden: exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1'


def now_ns() -> int:
    return int((EPOCH + asyncio.get_running_loop().time()) * 1e9)


def stamp() -> str:
    return datetime.fromtimestamp(now_ns() // 10**9, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Lost(Exception):
    """The call takes effect; its answer does not arrive."""


class FakeCluster:
    """`faults` are raised by the next creates (Lost: after it took effect); `down` by everything;
    `broken` by calls of that name. A watch replays after `lag`, a create takes `slow` seconds.
    `room` is how many pods the quota allows, `denied` a verb that the agent may not."""

    namespace = "whimbrel"

    def __init__(self) -> None:
        self.items: dict[str, dict[str, Object]] = {"pods": {}, "nodes": {}}
        self.faults: list[Exception] = []
        self.down: ApiError | None = None
        self.broken: dict[str, ApiError] = {}
        self.lag = self.slow = 0.0
        self.room: int | None = None
        self.denied = ""
        self.dead_hosts: set[str] = set()
        self.logs: dict[str, bytes] = {}
        self.calls: list[tuple[str, str]] = []
        self._history: list[tuple[str, str, Object]] = []
        self._news = asyncio.Event()
        self._uids = 0
        self.node("a")

    @property
    def pods(self) -> dict[str, Object]:
        return self.items["pods"]

    # -- what the agent calls ---------------------------------------------------------------------

    async def create(self, manifest: Object) -> Object:
        name = manifest["metadata"]["name"]
        await self._called("create", name)
        await asyncio.sleep(self.slow)
        fault = self.faults.pop(0) if self.faults else None
        if fault is not None and not isinstance(fault, Lost):
            raise fault
        if name in self.pods:
            raise Taken(f'pods "{name}" already exists', status=409, reason="AlreadyExists")
        if self.room is not None and len(self.pods) >= self.room:
            raise Denied(QUOTA, status=403)
        self._uids += 1
        pod = copy.deepcopy(manifest)
        pod["metadata"] |= {"uid": f"uid-{self._uids}", "creationTimestamp": stamp()}
        pod["status"] = {"phase": "Pending"}
        self._put("pods", pod)
        if fault is not None:
            raise ApiDown("no answer in time")
        return copy.deepcopy(pod)

    async def get(self, name: str) -> Object | None:
        await self._called("get", name)
        return copy.deepcopy(self.pods.get(name))

    async def delete(self, name: str, *, uid: str, grace_seconds: int | None = None) -> None:
        await self._called("delete", name)
        pod = self.pods.get(name)
        if pod is None or pod["metadata"]["uid"] != uid:
            return
        grace = grace_seconds
        if grace is None:
            grace = pod["spec"].get("terminationGracePeriodSeconds", 30)
        host = pod["spec"].get("nodeName")
        if not grace or not host:
            self.remove(name)
        elif host not in self.dead_hosts:
            pod["metadata"]["deletionTimestamp"] = stamp()
            self._put("pods", pod)
            over = pod["status"]["phase"] in ("Succeeded", "Failed")
            wait = 0.1 if over else float(grace)
            asyncio.get_running_loop().call_later(wait, self._reaped, name, uid)
        else:
            pod["metadata"]["deletionTimestamp"] = stamp()
            self._put("pods", pod)

    async def list(
        self, resource: str, *, selector: str = "", more: str = "", limit: int = 500
    ) -> Page:
        await self._called("list", resource)
        asked = dict(part.split("=") for part in selector.split(",") if part)
        found = [one for one in self.items[resource].values() if _has(one, asked)]
        return Page(copy.deepcopy(found), str(len(self._history)))

    async def watch(
        self, resource: str, *, resource_version: str, selector: str = ""
    ) -> AsyncGenerator[tuple[str, Object]]:
        await self._called("watch", resource)
        at = int(resource_version)
        if at > len(self._history):
            raise Expired("too old", status=410)
        asked = dict(part.split("=") for part in selector.split(",") if part)
        yield "BOOKMARK", {"metadata": {"resourceVersion": resource_version}}
        await asyncio.sleep(self.lag)
        while True:
            while at < len(self._history):
                kind, of, item = self._history[at]
                at += 1
                if of == resource and _has(item, asked):
                    yield kind, copy.deepcopy(item)
            await self._news.wait()
            if down := self.down or self.broken.get("watch"):
                raise down

    async def log(
        self, name: str, *, follow: bool, limit_bytes: int | None = None
    ) -> AsyncGenerator[bytes]:
        await self._called("log", name)
        if name not in self.pods:
            raise Missing(f'pods "{name}" not found', status=404)
        yield self.logs.get(name, b"")

    async def healthy(self) -> None:
        await self._called("healthy", "")

    async def may(
        self, verb: str, resource: str, subresource: str = "", *, namespaced: bool = True
    ) -> bool:
        await self._called("may", resource)
        return verb != self.denied

    async def whoami(self) -> str:
        return "agent"

    async def close(self) -> None:
        pass

    # -- what happens in it -----------------------------------------------------------------------

    def node(self, name: str, *, ready: str = "True") -> None:
        self._put("nodes", {
            "metadata": {"name": name},
            "status": {
                "conditions": [
                    {"type": "Ready", "status": ready, "lastTransitionTime": stamp()}
                ],
                "allocatable": {"cpu": "4", "memory": "8Gi", "ephemeral-storage": "10Gi"},
            },
        })  # fmt: skip

    def set(self, name: str, *, host: str = "", **status: Any) -> None:
        pod = self.pods[name]
        if host:
            pod["spec"]["nodeName"] = host
        pod["status"] |= status
        self._put("pods", pod)

    def state(self, name: str, state: Object, *, host: str = "a", phase: str = "Pending") -> None:
        statuses = [{"name": "task", "state": state}]
        self.set(name, host=host, phase=phase, containerStatuses=statuses)

    def waits(self, name: str, reason: str, message: str = "") -> None:
        self.state(name, {"waiting": {"reason": reason, "message": message}})

    def runs(self, name: str, *, host: str = "a") -> None:
        self.state(name, {"running": {"startedAt": stamp()}}, host=host, phase="Running")

    def ends(self, name: str, message: str = "", *, code: int = 0, reason: str = "") -> None:
        now = stamp()
        end = {"exitCode": code, "message": message, "startedAt": now, "finishedAt": now}
        end["reason"] = reason or ("Error" if code else "Completed")
        host = self.pods[name]["spec"].get("nodeName") or "a"
        phase = "Failed" if code else "Succeeded"
        self.state(name, {"terminated": end}, host=host, phase=phase)

    def unplaced(self, name: str, message: str) -> None:
        condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
        self.set(name, conditions=[condition | {"message": message}])

    def remove(self, name: str) -> None:
        pod = self.pods.pop(name)
        self._told("DELETED", "pods", pod)

    def breaks(self, what: str, error: ApiError) -> None:
        self.broken[what] = error
        self._wake()

    def fail(self, error: ApiError | None) -> None:
        """Everything, watches too, until it is given None."""
        self.down = error
        self._wake()

    def called(self, what: str) -> int:
        return sum(one == what for one, _ in self.calls)

    async def _called(self, what: str, name: str) -> None:
        self.calls.append((what, name))
        await asyncio.sleep(0.001)
        if down := self.down or self.broken.get(what):
            raise down

    def _reaped(self, name: str, uid: str) -> None:
        pod = self.pods.get(name)
        if pod is None or pod["metadata"]["uid"] != uid:
            return
        if pod["status"]["phase"] == "Running":
            self.ends(name, code=143)
        self.remove(name)

    def _put(self, resource: str, item: Object) -> None:
        name = item["metadata"]["name"]
        kind = "MODIFIED" if name in self.items[resource] else "ADDED"
        self.items[resource][name] = item
        self._told(kind, resource, item)

    def _told(self, kind: str, resource: str, item: Object) -> None:
        item["metadata"]["resourceVersion"] = str(len(self._history) + 1)
        self._history.append((kind, resource, copy.deepcopy(item)))
        self._wake()

    def _wake(self) -> None:
        self._news.set()
        self._news.clear()


def _has(item: Object, labels: dict[str, str]) -> bool:
    return labels.items() <= (item["metadata"].get("labels") or {}).items()
