"""One execution leaves a cluster that can't keep it: release, place, see it claimed.

Started by the sweeper through `client.py` for a row that no failover looks after; each step is an
activity (`activities.py`). Id `move/{execution}/{epoch}`: one story an epoch, so two sweepers
start one.
"""

import dataclasses
from datetime import timedelta
from typing import TypeVar

from temporalio import workflow

from control_plane.movement.steps import (
    CLAIMED,
    PATIENT,
    PLACE,
    RELEASE,
    STEP_SILENCE,
    STEP_TIMEOUT,
    Move,
    Moved,
    Placed,
    Released,
)

T = TypeVar("T")


@workflow.defn
class MoveWorkflow:
    @workflow.run
    async def run(self, story: Move) -> Moved:
        # 1. fence to nobody, declare what is unreachable
        released = await self._step(RELEASE, story, answer=Released)
        if not released.ours:
            return Moved(outcome="not ours")
        # 2. only exclusive work waits for its old copy to be dead
        if released.wait_seconds > 0:
            await workflow.sleep(timedelta(seconds=released.wait_seconds))
        # 3. place, fence to the cluster, assign
        placed = await self._step(PLACE, story, answer=Placed)
        if not placed.cluster:
            return Moved(outcome="waiting")
        # 4. claimed, or the sweeper's again
        return await self._see_claimed(story, placed)

    async def _see_claimed(self, story: Move, placed: Placed) -> Moved:
        began = workflow.now()
        limit = timedelta(seconds=story.claim_timeout_seconds)
        question = dataclasses.replace(story, epoch=placed.epoch)
        while True:
            if await self._step(CLAIMED, question, answer=bool):
                return Moved(outcome="claimed", cluster=placed.cluster)
            if workflow.now() - began >= limit:
                return Moved(outcome="unclaimed", cluster=placed.cluster)
            await workflow.sleep(timedelta(seconds=1))

    async def _step(self, name: str, story: Move, *, answer: type[T]) -> T:
        return await workflow.execute_activity(
            name,
            story,
            result_type=answer,
            start_to_close_timeout=STEP_TIMEOUT,
            heartbeat_timeout=STEP_SILENCE,
            retry_policy=PATIENT,
        )
