"""Whatever happens to its connections: the reflector ends equal to the server."""

import contextlib
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_plane_agent.pods.api import ApiDown, Expired, Page
from data_plane_agent.pods.reflector import (
    Change,
    Gone,
    Listed,
    Reflector,
    Seen,
)
from tests.data_plane_agent.pods.reflector_script import ScriptEnd, bookmark, pod

pytestmark = pytest.mark.anyio

FAULTS = ["down", "expired", "expired-late", "truncated", "half-open", "busy", "replay", "end"]


class Server:
    """Real history, a version a change; faults and writes by a script, then none and no more."""

    def __init__(self, script: list[tuple[str, int]]) -> None:
        self.script = script
        self.history: list[tuple[str, dict[str, Any]]] = []
        self.pods: dict[str, dict[str, Any]] = {}
        self.snapshots: dict[str, list[dict[str, Any]]] = {}

    @property
    def version(self) -> int:
        return len(self.history)

    def write(self, choice: int) -> None:
        """Names a..d come, change, go and come again."""
        name = "abcd"[choice % 4]
        version = self.version + 1
        held = self.pods.get(name)
        if held is None:
            kind, item = "ADDED", pod(name, version, uid=f"uid-{version}")
        else:
            kind = "DELETED" if choice % 3 == 0 else "MODIFIED"
            item = pod(name, version, uid=held["metadata"]["uid"])
        self.history.append((kind, item))
        if kind == "DELETED":
            del self.pods[name]
        else:
            self.pods[name] = item

    def _fault(self) -> str:
        if not self.script:
            return ""
        fault, writes = self.script.pop(0)
        for choice in range(writes):
            self.write(writes * 7 + choice * 5 + len(self.script))
        return fault

    async def list(
        self, resource: str, *, selector: str = "", more: str = "", limit: int = 500
    ) -> Page:
        fault = self._fault()
        if fault in ("down", "truncated", "half-open"):
            raise ApiDown(fault)
        if fault == "busy":
            raise ApiDown(fault, status=429, retry_after=1)
        if more and fault.startswith("expired"):
            raise Expired(fault)
        version, start = more.split("/") if more else (str(self.version), "0")
        items = self.snapshots.setdefault(version, sorted(self.pods.values(), key=str))
        end = int(start) + 2
        return Page(
            items[int(start) : end], version, more=f"{version}/{end}" if end < len(items) else ""
        )

    async def watch(
        self, resource: str, *, resource_version: str, selector: str = ""
    ) -> AsyncGenerator[tuple[str, dict[str, Any]]]:
        fault = self._fault()
        at = int(resource_version)
        match fault:
            case "down":
                raise ApiDown(fault)
            case "busy":
                raise ApiDown(fault, status=429, retry_after=1)
            case "expired":
                raise Expired(fault)
        yield bookmark(at)
        if fault == "replay":
            at = max(0, at - 2)
        for index in range(at, self.version):
            if fault in ("truncated", "half-open", "expired-late") and index - at >= 1:
                raise (Expired if fault == "expired-late" else ApiDown)(fault)
            yield self.history[index]
        if fault == "expired-late":
            raise Expired(fault)
        if fault in ("truncated", "half-open"):
            raise ApiDown(fault)
        yield bookmark(self.version)
        if not self.script:
            raise ScriptEnd


@settings(max_examples=150)
@given(st.lists(st.tuples(st.sampled_from(FAULTS), st.integers(0, 6)), max_size=25))
async def test_ends_equal_to_the_server_whatever_happens(script: list[tuple[str, int]]) -> None:
    server = Server(script)
    mirror: dict[str, Any] = {}
    lists: list[dict[str, Any]] = []

    def follow(change: Change) -> None:
        match change:
            case Seen(item):
                name = item["metadata"]["name"]
                held = mirror.get(name)
                assert held is None or held["metadata"]["uid"] == item["metadata"]["uid"]
                mirror[name] = item
            case Gone(item):
                del mirror[item["metadata"]["name"]]
            case Listed():
                lists.append(dict(mirror))

    async def no_sleep(_: float) -> None: ...

    reflector = Reflector(server, "pods", on_change=follow, sleep=no_sleep, chance=lambda: 0.5)
    with contextlib.suppress(ScriptEnd):
        await reflector.run()
    assert dict(reflector.items) == server.pods
    assert mirror == server.pods  # who only hears the changes knows the same
    assert lists
