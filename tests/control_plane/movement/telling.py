"""Stories told by a real Temporal, steps from a script; histories are saved on demand."""

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator
from pathlib import Path

from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter

from control_plane.movement.client import Pace, TemporalMovement
from control_plane.movement.planned import (
    Drained,
    Empty,
    End,
    Migrate,
    Migrated,
    PlannedSteps,
    Send,
    Stage,
    Wait,
)
from control_plane.movement.steps import (
    Batch,
    Failover,
    Hold,
    Loss,
    Move,
    Placed,
    Released,
    Summary,
    Taken,
)
from tests.control_plane.movement.temporal_server import TemporalServer

SAVE = "WHIMBREL_SAVE_HISTORIES"
HISTORIES = Path(__file__).parent / "histories"


class Scripted:
    """Steps of planned moves and drains from a script, by name; "" scripted = it goes well."""

    def __init__(self, **answers: list[Stage]) -> None:
        self.answers = answers
        self.asked: list[tuple[str, object]] = []
        self.looks: list[Drained] = []

    def _next(self, name: str, argument: object, state: str) -> Stage:
        self.asked.append((name, argument))
        scripted = self.answers.get(name, [])
        return scripted.pop(0) if scripted else Stage(state, "eu-west", 2)

    async def prepare(self, story: Migrate) -> Stage:
        return self._next("prepare", story, "go")

    async def quiesce(self, story: Migrate) -> Stage:
        return self._next("quiesce", story, "go")

    async def released(self, wait: Wait) -> Stage:
        return self._next("released", wait, "released")

    async def take(self, story: Migrate) -> Stage:
        return self._next("take", story, "released")

    async def hand_over(self, story: Migrate) -> Stage:
        return self._next("hand_over", story, "go")

    async def send(self, send: Send) -> Stage:
        return self._next("send", send, "placed")

    async def claimed(self, wait: Wait) -> Stage:
        return self._next("claimed", wait, "claimed")

    async def resumed(self, wait: Wait) -> Stage:
        return self._next("resumed", wait, "resumed")

    async def end(self, end: End) -> Migrated:
        self.asked.append(("end", end))
        return Migrated(end.phase)

    async def empty(self, drain: Empty) -> Drained:
        self.asked.append(("empty", drain))
        return self.looks.pop(0) if self.looks else Drained("DONE", moved=3)

    def names(self) -> list[str]:
        return [name for name, _ in self.asked]


class Remembered:
    """Steps from a script; whatever is not scripted goes well."""

    def __init__(self) -> None:
        self.asked: list[object] = []
        self.losses: list[Loss] = []
        self.batches: list[Taken | Exception] = []
        self.released = Released(ours=True)
        self.placed = Placed(cluster="eu-west", epoch=3)
        self.claims: list[bool] = []

    async def watch_loss(self, hold: Hold) -> Loss:
        self.asked.append(hold)
        return self.losses.pop(0) if len(self.losses) > 1 else (self.losses or [Loss()])[0]

    async def take_over_batch(self, batch: Batch) -> Taken:
        self.asked.append(batch)
        answer = self.batches.pop(0) if self.batches else Taken(taken=0, waiting=0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def summarize(self, story: Failover) -> Summary:
        self.asked.append(story)
        return Summary(
            cluster=story.cluster,
            cluster_epoch=story.cluster_epoch,
            moved=story.taken - story.waiting,
            waiting=story.waiting,
        )

    async def release(self, move: Move) -> Released:
        self.asked.append(move)
        return self.released

    async def place(self, move: Move) -> Placed:
        return self.placed

    async def claimed(self, move: Move) -> bool:
        self.asked.append(move)
        return self.claims.pop(0) if self.claims else True

    def holds(self) -> list[Hold]:
        return [asked for asked in self.asked if isinstance(asked, Hold)]


PACE = Pace(
    batch=10, rate=1000, hold_max_seconds=2, claim_grace_seconds=0.1, claim_timeout_seconds=1
)


async def until_connected(server: TemporalServer) -> Client:
    """The port listens a moment before the namespace is there."""
    async with asyncio.timeout(60):
        while True:
            with contextlib.suppress(Exception):
                client = await Client.connect(
                    server.address, data_converter=pydantic_data_converter
                )
                await client.count_workflows()
                return client
            await asyncio.sleep(0.1)


@contextlib.asynccontextmanager
async def movement(
    server: TemporalServer,
    steps: Remembered | None = None,
    planned: Scripted | PlannedSteps | None = None,
) -> AsyncGenerator[tuple[TemporalMovement, Client]]:
    client = await until_connected(server)
    stories = TemporalMovement(
        server.address, steps=steps or Remembered(), pace=PACE, retry_seconds=0.1
    )
    plan = planned or Scripted()
    plan = PlannedSteps(plan, plan, plan) if isinstance(plan, Scripted) else plan
    running = asyncio.create_task(stories.run(plan))
    async with asyncio.timeout(30):
        await stories.connected.wait()
    try:
        yield stories, client
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def told(client: Client, id: str, answer: type) -> object:
    async with asyncio.timeout(60):
        handle = client.get_workflow_handle(id, result_type=answer)
        result = await handle.result()
    if os.environ.get(SAVE):
        name = id.replace("/", "-")
        history = await handle.fetch_history()
        (HISTORIES / f"{name}.json").write_text(history.to_json())
    return result
