"""An old worker begins a story, is stopped in its midst, and today's worker finishes it."""

import asyncio

import pytest
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from control_plane.movement.registry import activities_of
from control_plane.movement.steps import TASK_QUEUE, Batch, Failover, Summary, Taken, failover_id
from tests.control_plane.movement import first_failover
from tests.control_plane.movement.telling import Remembered, movement, told, until_connected
from tests.control_plane.movement.temporal_server import TemporalServer

pytestmark = pytest.mark.anyio


class Stopping(Remembered):
    """Says when the second batch was asked for, and does not answer as long as `old`."""

    def __init__(self) -> None:
        super().__init__()
        self.old = True
        self.second = asyncio.Event()

    async def take_over_batch(self, batch: Batch) -> Taken:
        if self.old and any(isinstance(asked, Batch) for asked in self.asked):
            self.second.set()
            await asyncio.Event().wait()
        return await super().take_over_batch(batch)


async def test_an_old_worker_begins_and_todays_finishes(server: TemporalServer) -> None:
    steps = Stopping()
    steps.batches = [Taken(taken=10, waiting=0), Taken(taken=5, waiting=1)]
    client = await until_connected(server)
    old = Worker(
        client,
        task_queue=TASK_QUEUE,
        workflows=[first_failover.ClusterFailoverWorkflow],
        activities=activities_of(steps),
        workflow_runner=UnsandboxedWorkflowRunner(),
    )
    async with asyncio.timeout(60), old:
        await client.start_workflow(
            first_failover.ClusterFailoverWorkflow.run,
            Failover(cluster="upgraded", cluster_epoch=1, since_ns=5, batch=10),
            id=failover_id("upgraded", 1),
            task_queue=TASK_QUEUE,
        )
        await steps.second.wait()
    steps.old = False
    async with movement(server, steps) as (_, client):
        summary = await told(client, failover_id("upgraded", 1), Summary)
    assert summary == Summary(cluster="upgraded", cluster_epoch=1, moved=14, waiting=1)
    assert len(steps.holds()) == 1  # it goes on as it began: guarded once
