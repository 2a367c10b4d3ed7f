"""The stories on a real Temporal, with steps that only remember what was asked of them."""

import asyncio
import contextlib
from pathlib import Path

import pytest
from temporalio.client import WorkflowExecutionStatus
from whimbrel.errors import Unreachable

from control_plane.movement.failover import BATCHES_A_RUN
from control_plane.movement.steps import (
    Batch,
    Loss,
    Move,
    Moved,
    Placed,
    Released,
    Summary,
    Taken,
)
from tests.control_plane.movement.telling import Remembered, movement, told, until_connected
from tests.control_plane.movement.temporal_server import TemporalServer, serving

pytestmark = pytest.mark.anyio


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


@pytest.mark.fault(33, 47)
async def test_a_crowd_does_not_fill_the_history(server: TemporalServer) -> None:
    """Thousands of runs are hundreds of batches: told by several runs of one story."""
    steps = Remembered()
    steps.batches = [Taken(taken=1, waiting=0)] * (BATCHES_A_RUN + 10)
    async with movement(server, steps) as (stories, client):
        await stories.lost("crowd", 1, since_ns=5)
        summary = await told(client, "failover/crowd/1", Summary)
        lengths = [
            run.history_length or 0
            async for run in client.list_workflows("WorkflowId = 'failover/crowd/1'")
        ]
    assert isinstance(summary, Summary)
    assert summary.moved == BATCHES_A_RUN + 10
    assert len(lengths) == 2
    assert max(lengths) < 4000, "Temporal warns at 10,000 events"


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


async def test_a_move_that_finds_no_place_waits(server: TemporalServer) -> None:
    steps = Remembered()
    steps.placed = Placed(cluster="", epoch=2)
    async with movement(server, steps) as (stories, client):
        await stories.move("p/d/waiting", 1, cause="failover")
        moved = await told(client, "move/p/d/waiting/1", Moved)
    assert moved == Moved(outcome="waiting")


async def test_a_mass_loss_in_the_middle_holds_too(server: TemporalServer) -> None:
    steps = Remembered()
    steps.losses = [Loss(), Loss(hold="2 of 3 clusters were lost"), Loss()]
    steps.batches = [Taken(taken=10, waiting=0), Taken(taken=1, waiting=0)]
    async with movement(server, steps) as (stories, client):
        await stories.lost("middle", 1, since_ns=5)
        await told(client, "failover/middle/1", Summary)
    kinds = [type(asked).__name__ for asked in steps.asked]
    assert kinds == ["Hold", "Batch", "Hold", "Hold", "Batch", "Hold", "Batch", "Failover"]


async def test_a_hold_that_was_ended_is_not_held_again(server: TemporalServer) -> None:
    steps = Remembered()
    steps.losses = [Loss(hold="3 of 3 clusters were lost")]
    steps.batches = [Taken(taken=10, waiting=0), Taken(taken=1, waiting=0)]
    async with movement(server, steps) as (stories, client):
        await stories.lost("over", 1, since_ns=5)
        await told(client, "failover/over/1", Summary)
    assert [type(asked).__name__ for asked in steps.asked].count("Batch") == 3
    assert [hold.ended for hold in steps.holds()].count(True) == 1
