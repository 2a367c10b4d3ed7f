"""An engine with its outbox and guard, between a fake ledger and a fake launcher."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from whimbrel.spec import Artifact, Assignment, Want, sha256

from data_plane_agent import messages as m
from data_plane_agent.engine import Engine
from data_plane_agent.fence import Welcomed
from data_plane_agent.guard import Guard
from data_plane_agent.launcher import Attempt, AttemptKey
from data_plane_agent.outbox import Outbox
from data_plane_agent.spans import Spans
from data_plane_agent.specs import Specs
from tests.fakes import Behaviour, FakeLauncher, FakeLedger

X = "p/d/x"
HOUR = 3600 * 1_000_000_000


def answer(attempt: Attempt) -> Mapping[str, Any]:
    return {"o0": attempt.input_digest[:8]}


def forever(attempt: Attempt) -> None:
    return None


@dataclass
class Agent:
    engine: Engine
    launcher: FakeLauncher
    ledger: FakeLedger
    guard: Guard
    outbox: Outbox
    objects: dict[str, bytes]
    renewals: list[None]

    async def get(self, uri: str) -> bytes:
        return self.objects[uri]

    async def put(self, key: str, data: bytes, *, kind: str = "file") -> Artifact:
        uri = f"s3://here/{key}"
        self.objects[uri] = data
        return Artifact(uri, sha256(data), len(data), "r-here", kind)

    def join(self, cluster_epoch: int = 1, *, resumed: bool = False, ttl_ns: int = HOUR) -> None:
        self.guard.hear(Welcomed(self.guard.now() - 1, ttl_ns, resumed))
        self.engine.joined(cluster_epoch, resumed=resumed)

    def assign(self, *executions: str, epoch: int = 1, want: Want = Want.RUN) -> None:
        found = tuple(Assignment(one, epoch, "c", want) for one in executions)
        self.engine.assigned(m.Changed(found))

    async def end(self, execution: str = X) -> m.Event:
        await until(lambda: self.ledger.rows[execution]["end"] is not None)
        return self.ledger.rows[execution]["end"]

    @property
    def nodes_started(self) -> list[str]:
        return [attempt.key.node for attempt in self.launcher.started]


async def until(true: Any) -> None:
    async with asyncio.timeout(20):
        while not true():
            await asyncio.sleep(0.001)


@asynccontextmanager
async def agent(
    folder: Path,
    ledger: FakeLedger,
    behave: Behaviour = answer,
    *,
    found: Mapping[AttemptKey, str] | None = None,
    max_executions: int = 100,
    clock: Callable[[], int] = lambda: 1,
    quiesce_seconds: float = 30.0,
) -> AsyncIterator[Agent]:
    guard = Guard(clock=clock)
    launcher = FakeLauncher(behave, found=found)
    outbox = Outbox(folder / "outbox")
    renewals: list[None] = []
    it = Agent.__new__(Agent)  # the engine reads its objects from here
    engine = Engine(
        launcher=launcher,
        ledger=ledger,
        outbox=outbox,
        store=it,
        specs=Specs(folder / "specs", ledger),
        guard=guard,
        spans=Spans(),
        max_executions=max_executions,
        renew=lambda: renewals.append(None),
        quiesce_seconds=quiesce_seconds,
    )
    it.__init__(engine, launcher, ledger, guard, outbox, {}, renewals)
    running = asyncio.create_task(engine.run())
    try:
        yield it
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
