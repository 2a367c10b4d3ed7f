"""Logs asked for: running, ended here, and ended under an agent before this one."""

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

import pytest
from whimbrel.spec import Artifact

from data_plane_agent import messages as m
from data_plane_agent.launcher import AttemptKey, Logs
from data_plane_agent.questions import Questions

pytestmark = pytest.mark.anyio

KEY = AttemptKey("p/d/x", "a", 2, 1)
URI = "s3://east/log"


@dataclass
class Parts:
    """What the answers are made from: the engine's memory, the store, the launcher."""

    known: AttemptKey | None = None
    logs: OrderedDict[AttemptKey, Logs] = field(default_factory=OrderedDict)
    objects: dict[str, bytes] = field(default_factory=dict)
    live: bytes = b""

    def newest(self, execution: str, node: str, *, attempt: int = 0) -> AttemptKey | None:
        return self.known if self.known and attempt in (0, self.known.attempt) else None

    async def get(self, uri: str) -> bytes:
        return self.objects[uri]

    async def unreadable(self, artifacts: Any) -> list[str]:
        return []

    async def read_log(
        self, key: AttemptKey, stream: str, *, offset: int, limit: int
    ) -> tuple[bytes, bool]:
        return (self.live[offset : offset + limit], False) if stream == "stdout" else (b"", True)


async def ask(parts: Parts, stream: str = "stdout", *, offset: int = 0, uri: str = "") -> m.Answer:
    engine: Any = parts
    questions = Questions(engine=engine, store=parts, copies=parts, live=parts)
    return await questions.answer(m.ReadLog("q", "p/d/x", "a", 2, stream, offset, 100, uri))


async def test_a_running_attempt_is_read_from_the_compute() -> None:
    parts = Parts(known=KEY, live=b"abc")
    assert await ask(parts, offset=1) == m.Answer("q", data=b"bc", end=False, attempt=2)
    # A pod's one stream is its stdout; nothing more comes from the other.
    assert await ask(parts, "stderr") == m.Answer("q", end=True, attempt=2)


async def test_an_ended_attempt_is_read_from_the_store() -> None:
    parts = Parts(known=KEY, objects={URI: b"abc"})
    parts.logs[KEY] = Logs(stdout=Artifact(URI, "00", 3, "r"))
    assert await ask(parts, offset=3) == m.Answer("q", end=True, attempt=2)
    assert await ask(parts) == m.Answer("q", data=b"abc", end=True, attempt=2)
    assert await ask(parts, "stderr") == m.Answer("q", end=True, attempt=2)


async def test_an_attempt_from_before_the_restart_is_found_where_the_ledger_says() -> None:
    parts = Parts(objects={URI: b"abc"})
    assert await ask(parts, uri=URI) == m.Answer("q", data=b"abc", end=True, attempt=2)
    assert "does not know" in (await ask(parts)).error
