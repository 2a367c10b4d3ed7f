"""One region: its compute, which outlives its agent, and the agent, which can be killed.

The agent is the real engine, session, guard and outbox; only the heartbeat beats in the loop
instead of in threads, and attempts last as long as chance says instead of running code.
"""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from whimbrel.errors import WhimbrelError
from whimbrel.spec import Artifact, Failure, Outputs, Owner, Resources, canonical, sha256
from whimbrel.wire.v1 import agent_pb2_grpc

from data_plane_agent import codec
from data_plane_agent import messages as m
from data_plane_agent.engine import Engine
from data_plane_agent.guard import Guard
from data_plane_agent.heartbeat import Heartbeat
from data_plane_agent.launcher import (
    Attempt,
    AttemptEvent,
    AttemptKey,
    Broke,
    Capacity,
    Finished,
    Found,
    Renewal,
    Started,
)
from data_plane_agent.outbox import Outbox
from data_plane_agent.rpc import Gateway
from data_plane_agent.session import Identity, Session
from data_plane_agent.spans import Spans
from data_plane_agent.specs import Specs
from tests.simulation.network import Channel

SHORTEST, LONGEST = 0.2, 4.0
"""Seconds of an attempt."""


@dataclass(frozen=True, slots=True)
class Span:
    """User code of one attempt ran here from `began` to `ended`."""

    key: AttemptKey
    cluster: str
    began: float
    ended: float


class Compute:
    """The machines of a region: attempts in flight and ends that nobody has taken."""

    def __init__(self, cluster: str, chance: random.Random, ran: list[Span]) -> None:
        self.cluster = cluster
        self._chance = chance
        self._ran = ran
        self.running: dict[AttemptKey, tuple[str, asyncio.Task[None]]] = {}
        self.kept: dict[AttemptKey, Finished | Broke] = {}
        self.digests: dict[AttemptKey, str] = {}
        self.renewals: dict[AttemptKey, Renewal] = {}
        """Who may push out an exclusive attempt's timer; nobody = it runs down."""
        self.told: Callable[[AttemptEvent], None] = lambda event: None

    def begin(self, attempt: Attempt, renewal: Renewal) -> None:
        if attempt.key in self.running or attempt.key in self.kept:
            return
        self.renewals[attempt.key] = renewal
        self.digests[attempt.key] = attempt.input_digest
        task = asyncio.create_task(self._run(attempt))
        self.running[attempt.key] = (attempt.input_digest, task)

    async def _run(self, attempt: Attempt) -> None:
        clock = asyncio.get_running_loop().time
        began, key = clock(), attempt.key
        length = self._chance.uniform(SHORTEST, LONGEST)
        try:
            if attempt.exclusive and not await self._timed(key, began, length):
                self._end(Broke(key, NO_RENEWAL, int(began * 1e9), int(clock() * 1e9)))
                return
            if not attempt.exclusive:
                self.told(Started(key, int(began * 1e9)))
                await asyncio.sleep(length)
            text = canonical({"o0": int(sha256(canonical(attempt.inputs))[:6], 16)})
            outputs = Outputs(text, sha256(text))
            times = int(began * 1e9), int(clock() * 1e9)
            self._end(Finished(key, outputs, attempt.input_digest, *times))
        finally:
            self.running.pop(key, None)
            self._ran.append(Span(key, self.cluster, began, clock()))

    async def _timed(self, key: AttemptKey, began: float, length: float) -> bool:
        """User code under its kernel timer; False when that fired, or never could be armed."""
        clock = asyncio.get_running_loop().time
        until = self._until(key)
        if until <= clock():
            return False
        self.told(Started(key, int(began * 1e9)))
        while clock() < began + length:
            await asyncio.sleep(
                max(0.0, min(TIMER_LOOK, began + length - clock(), until - clock()))
            )
            if clock() >= until:
                return False
            until = max(until, self._until(key))
        return True

    def _until(self, key: AttemptKey) -> float:
        renewal = self.renewals.get(key)
        return renewal.until_ns() / 1e9 if renewal is not None else 0.0

    def _end(self, event: Finished | Broke) -> None:
        self.kept[event.key] = event
        self.told(event)

    async def stop(self, keys: Sequence[AttemptKey]) -> None:
        for key in keys:
            self.kept.pop(key, None)
            if key in self.running:
                task = self.running[key][1]
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task

    async def lose(self) -> None:
        await self.stop([*self.running, *self.kept])


NO_RENEWAL = Failure(Owner.SYSTEM, "no_renewal", "its session was not renewed in time")
TIMER_LOOK = 0.05
"""Seconds between two looks of a task at its renewals."""


class Launcher:
    """An agent's view of the compute, from its start to its death."""

    def __init__(self, compute: Compute, renewal: Renewal) -> None:
        self._compute = compute
        self._renewal = renewal
        self._events: asyncio.Queue[AttemptEvent] = asyncio.Queue()
        compute.renewals.clear()  # another agent's attempts are nobody's until they are adopted
        found = {key: digest for key, (digest, _) in compute.running.items()}
        found |= {key: compute.digests[key] for key in compute.kept}
        self._events.put_nowait(Found(found))
        for one in compute.kept.values():
            self._events.put_nowait(one)
        compute.told = self._events.put_nowait

    async def start(self, attempts: Sequence[Attempt]) -> None:
        for attempt in attempts:
            self._compute.begin(attempt, self._renewal)

    async def watch(self) -> AsyncIterator[Sequence[AttemptEvent]]:
        while True:
            yield [await self._events.get()]

    def taken(self, keys: Sequence[AttemptKey]) -> None:
        for key in keys:
            self._compute.kept.pop(key, None)

    async def quiesce(self, keys: Sequence[AttemptKey]) -> None:
        """Nobody here saves checkpoints."""

    async def cancel(self, keys: Sequence[AttemptKey]) -> None:
        await self._compute.stop(keys)

    kill = cancel

    async def adopt(self, keys: Sequence[AttemptKey]) -> None:
        self._compute.renewals |= dict.fromkeys(keys, self._renewal)

    def capacity(self) -> Capacity:
        return Capacity(Resources(cpu=4), Resources(cpu=4), len(self._compute.running), 0)


class Heart(Heartbeat):
    """Beats in the loop."""

    def dial(self, channel: Channel) -> "Heart":
        self._channel = channel
        self._beating: asyncio.Task[None] | None = None
        return self

    def begin(self, welcome: m.Welcome, *, address: str) -> None:
        self.end()
        self._beating = asyncio.create_task(self._beat(welcome))

    def end(self) -> None:
        if self._beating is not None:
            self._beating.cancel()
            self._beating = None

    async def _beat(self, welcome: m.Welcome) -> None:
        stub: Any = agent_pb2_grpc.AgentGatewayStub(self._channel)

        async def once(beat: m.Beat) -> None:
            async def said() -> AsyncIterator[Any]:
                yield codec.beat_to_wire(beat)

            with contextlib.suppress(WhimbrelError, grpc.RpcError):
                async for ack in stub.Beat(said()):
                    self.heard(codec.ack_from_wire(ack))

        sent: dict[asyncio.Task[None], None] = {}
        try:
            while True:
                # A late answer must not hold up the next beat.
                task = asyncio.create_task(once(self.next(welcome)))
                sent[task] = None
                task.add_done_callback(sent.pop)
                await asyncio.sleep(welcome.heartbeat_seconds / 2)
                self.late(0)
                await asyncio.sleep(welcome.heartbeat_seconds / 2)
                self.late(0)
        finally:
            for task in list(sent):
                task.cancel()


class Agent:
    """One life of one agent's process."""

    def __init__(
        self, compute: Compute, folder: Path, dial: Callable[[], Channel], *, life: int
    ) -> None:
        cluster = compute.cluster
        loop = asyncio.get_running_loop()
        gateway = Gateway(["router"], cluster=cluster, dial=lambda _: dial())  # type: ignore[arg-type,return-value]
        self.guard = Guard(clock=lambda: int(loop.time() * 1e9))
        self.outbox = Outbox(folder / "outbox")
        self.engine = Engine(
            launcher=Launcher(compute, self.guard), ledger=gateway, outbox=self.outbox,
            store=NoStore(),
            specs=Specs(folder / "specs", gateway), guard=self.guard, spans=Spans(),
            max_executions=100, renew=lambda: self.session.renew(),
        )  # fmt: skip
        self.heart = Heart(
            cluster=cluster, addresses=["router"], connect=_no_threads, guard=self.guard,
            vitals=self.engine.vitals, on_over=lambda: self.session.renew(),
        ).dial(dial())  # fmt: skip
        self.session = Session(
            Identity(cluster, f"r-{cluster}", f"{cluster}-{life}", "0"), door=gateway,
            engine=self.engine, guard=self.guard, heartbeat=self.heart, questions=Questions(),
        )  # fmt: skip
        self._tasks = [
            asyncio.create_task(self.engine.run()),
            asyncio.create_task(self.session.run()),
        ]

    def look(self) -> None:
        """Raises what ended one of its loops: nothing may, but its death."""
        for task in self._tasks:
            if task.done():
                task.result()

    async def die(self) -> None:
        self.heart.end()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _no_threads(address: str) -> Any:
    raise AssertionError("a simulation has no threads")


class NoStore:
    async def get(self, uri: str) -> bytes:
        raise AssertionError(f"nothing here is in a store: {uri}")

    async def put(self, key: str, data: bytes, *, kind: str = "file") -> Artifact:
        raise AssertionError(f"nothing here is in a store: {key}")


class Questions:
    async def answer(self, question: Any) -> m.Answer:
        return m.Answer(question.id)
