"""The worker process of the Temporal peer: no sandbox and no polling limits in its way.

Started by `temporal.py` with the server's address.
"""

import asyncio
import sys
import time
from datetime import timedelta

from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

LIMIT = timedelta(minutes=5)


@activity.defn
async def leaf(index: int) -> float:
    return time.time()


@workflow.defn
class Fan:
    @workflow.run
    async def run(self, size: int) -> float:
        handles = [
            workflow.start_activity(leaf, index, start_to_close_timeout=LIMIT)
            for index in range(size)
        ]
        return min(await asyncio.gather(*handles))


@workflow.defn
class Chain:
    @workflow.run
    async def run(self, size: int) -> float:
        starts = [
            await workflow.execute_activity(leaf, index, start_to_close_timeout=LIMIT)
            for index in range(size)
        ]
        return min(starts)


async def main(address: str) -> None:
    worker = Worker(
        await Client.connect(address), task_queue="bench", workflows=[Fan, Chain],
        activities=[leaf], workflow_runner=UnsandboxedWorkflowRunner(),
        max_concurrent_activities=1000,
    )  # fmt: skip
    await worker.run()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
