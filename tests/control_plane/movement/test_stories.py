"""The stories on a real Temporal, with steps that only remember what was asked of them."""

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path

import pytest
from temporalio.client import Client, WorkflowExecutionStatus, WorkflowHistory
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.worker import Replayer, UnsandboxedWorkflowRunner
from whimbrel.errors import Unreachable

from control_plane.movement.client import Pace, TemporalMovement
from control_plane.movement.steps import (
    Batch,
    Failover,
    Hold,
    Loss,
    Move,
    Moved,
    Placed,
    Released,
    Summary,
    Taken,
)
from control_plane.movement.worker import STORIES
from tests.control_plane.movement.temporal_server import TemporalServer, serving

pytestmark = pytest.mark.anyio

HISTORIES = Path(__file__).parent / "histories"


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


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TemporalServer]:
    with serving(tmp_path_factory.mktemp("temporal")) as server:
        yield server


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
    server: TemporalServer, steps: Remembered
) -> AsyncGenerator[tuple[TemporalMovement, Client]]:
    client = await until_connected(server)
    stories = TemporalMovement(server.address, steps=steps, pace=PACE, retry_seconds=0.1)
    running = asyncio.create_task(stories.run())
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
    if os.environ.get("WHIMBREL_SAVE_HISTORIES"):
        name = id.replace("/", "-")
        history = await handle.fetch_history()
        (HISTORIES / f"{name}.json").write_text(history.to_json())
    return result


async def test_a_failover_takes_batches_until_nothing_is_left(server: TemporalServer) -> None:
    steps = Remembered()
    steps.batches = [
        Taken(taken=10, waiting=1),
        Taken(taken=0, waiting=0, left=True),
        Taken(taken=4, waiting=0),
    ]
    async with movement(server, steps) as (stories, client):
        await stories.lost("plain", 1, since_ns=5)
        summary = await told(client, "failover/plain/1", Summary)
    assert summary == Summary(cluster="plain", cluster_epoch=1, moved=13, waiting=1)


async def test_a_mass_loss_holds_and_the_hold_ends(server: TemporalServer) -> None:
    steps = Remembered()
    steps.losses = [Loss(hold="3 of 3 clusters were lost")]
    steps.batches = [Taken(taken=1, waiting=0)]
    async with movement(server, steps) as (stories, client):
        await stories.lost("mass", 1, since_ns=5)
        summary = await told(client, "failover/mass/1", Summary)
    holds = steps.holds()
    assert len(holds) >= 3
    assert [hold.ended for hold in holds] == [False] * (len(holds) - 1) + [True]
    first_batch = next(i for i, asked in enumerate(steps.asked) if isinstance(asked, Batch))
    assert first_batch == len(holds)
    assert isinstance(summary, Summary)
    assert summary.moved == 1


async def test_a_hold_ends_when_most_are_back(server: TemporalServer) -> None:
    steps = Remembered()
    steps.losses = [Loss(hold="2 of 3 clusters were lost"), Loss(returned=True)]
    async with movement(server, steps) as (stories, client):
        await stories.lost("back", 1, since_ns=5)
        await told(client, "failover/back/1", Summary)
    assert [hold.ended for hold in steps.holds()] == [False, False]


async def test_a_step_that_fails_is_tried_again(server: TemporalServer) -> None:
    steps = Remembered()
    steps.batches = [
        Unreachable("the router does not answer"),
        Unreachable("the router does not answer"),
        Taken(taken=2, waiting=0),
    ]
    async with movement(server, steps) as (stories, client):
        await stories.lost("retried", 1, since_ns=5)
        summary = await told(client, "failover/retried/1", Summary)
    assert isinstance(summary, Summary)
    assert summary.moved == 2


async def test_a_session_is_failed_over_once(server: TemporalServer) -> None:
    steps = Remembered()
    async with movement(server, steps) as (stories, client):
        await stories.lost("once", 7, since_ns=5)
        await stories.lost("once", 7, since_ns=5)  # running, or ended: the same story
        await told(client, "failover/once/7", Summary)
        first = await client.get_workflow_handle("failover/once/7").describe()
        await stories.lost("once", 7, since_ns=6)
        again = await client.get_workflow_handle("failover/once/7").describe()
        await stories.lost("once", 8, since_ns=6)
        await told(client, "failover/once/8", Summary)
    assert first.run_id == again.run_id
    assert again.status is WorkflowExecutionStatus.COMPLETED
    assert len(steps.holds()) == 2


async def test_a_move_ends_when_claimed(server: TemporalServer) -> None:
    steps = Remembered()
    steps.claims = [False, True]
    async with movement(server, steps) as (stories, client):
        await stories.move("p/d/claimed", 1, cause="failover")
        moved = await told(client, "move/p/d/claimed/1", Moved)
    assert moved == Moved(outcome="claimed", cluster="eu-west")
    assert steps.asked[-1] == Move(
        execution="p/d/claimed", epoch=3, cause="failover", claim_timeout_seconds=1
    )


async def test_an_unclaimed_move_is_left_to_the_sweeper(server: TemporalServer) -> None:
    steps = Remembered()
    steps.claims = [False] * 100
    async with movement(server, steps) as (stories, client):
        await stories.move("p/d/unclaimed", 1, cause="failover")
        moved = await told(client, "move/p/d/unclaimed/1", Moved)
    assert moved == Moved(outcome="unclaimed", cluster="eu-west")


async def test_a_row_that_has_gone_on_is_not_moved(server: TemporalServer) -> None:
    steps = Remembered()
    steps.released = Released(ours=False)
    async with movement(server, steps) as (stories, client):
        await stories.move("p/d/gone", 1, cause="failover")
        moved = await told(client, "move/p/d/gone/1", Moved)
    assert moved == Moved(outcome="not ours")


async def test_stories_go_on_after_temporal_was_killed(tmp_path: Path) -> None:
    steps = Remembered()
    with serving(tmp_path) as server:
        async with movement(server, steps) as (stories, client):
            await stories.lost("before", 1, since_ns=5)
            await told(client, "failover/before/1", Summary)
            server.stop()
            await stories.lost("during", 1, since_ns=5)  # fails quietly; the sweeper repeats it
            server.start()
            client = await until_connected(server)
            async with asyncio.timeout(60):
                while True:
                    await stories.lost("after", 1, since_ns=5)
                    with contextlib.suppress(Exception):
                        await client.get_workflow_handle("failover/after/1").describe()
                        break
            await told(client, "failover/after/1", Summary)


@pytest.mark.parametrize("saved", sorted(HISTORIES.rglob("*.json")), ids=lambda path: path.stem)
async def test_saved_histories_replay(saved: Path) -> None:
    """A change of a story's code must not strand the stories that are open: these are such."""
    replayer = Replayer(
        workflows=list(STORIES),
        data_converter=pydantic_data_converter,
        workflow_runner=UnsandboxedWorkflowRunner(),
    )
    await replayer.replay_workflow(
        WorkflowHistory.from_json(saved.stem, json.loads(saved.read_text()))
    )


def test_there_are_histories_of_both_stories() -> None:
    kinds = {path.stem.split("-")[0] for path in HISTORIES.rglob("*.json")}
    assert kinds == {"failover", "move"}
