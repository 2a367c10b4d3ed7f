"""The failover as it was first told, kept: what that began must be finished by today's code.

Told by an old worker in `test_upgrade.py`; its histories are in `histories/first`.
"""

import dataclasses
from datetime import timedelta

from temporalio import workflow

from control_plane.movement.steps import (
    PATIENT,
    STEP_SILENCE,
    STEP_TIMEOUT,
    SUMMARIZE,
    TAKE_OVER_BATCH,
    WATCH_LOSS,
    Batch,
    Failover,
    Hold,
    Loss,
    Summary,
    Taken,
)

BATCHES_A_RUN = 200
"""History of one run stays near 1,300 events; Temporal warns at 10,000."""


@workflow.defn
class ClusterFailoverWorkflow:
    @workflow.run
    async def run(self, story: Failover) -> Summary:
        # 1. one loss, or the whole world's?
        if not story.guarded:
            await self._guard(story)
            story = dataclasses.replace(story, guarded=True)
        # 2. batches until nothing is left that the lost session owned
        for _ in range(BATCHES_A_RUN):
            begun = workflow.now()
            taken = await self._take_over(story)
            if taken.taken == 0 and not taken.left:
                # 3. what became of it
                return await self._summarize(story)
            story = dataclasses.replace(
                story, taken=story.taken + taken.taken, waiting=story.waiting + taken.waiting
            )
            share = timedelta(seconds=taken.taken / story.rate) - (workflow.now() - begun)
            if taken.taken == story.batch and share > timedelta(0):
                await workflow.sleep(share)
        workflow.continue_as_new(story)

    async def _guard(self, story: Failover) -> None:
        """Returns when takeover may begin. Looks every second while most clusters seem gone: then
        it is more likely that we lost them than that they are dead, and idempotent work goes on
        there anyway."""
        begun = workflow.now()
        while True:
            held = (workflow.now() - begun).total_seconds()
            ended = held >= story.hold_max_seconds
            loss = await self._look(story, held=held, ended=ended)
            if loss.returned:
                # Its agent claims what it holds; a claimed row is no longer the lost session's.
                await workflow.sleep(timedelta(seconds=story.claim_grace_seconds))
                return
            if not loss.hold or ended:
                return
            await workflow.sleep(timedelta(seconds=1))

    async def _look(self, story: Failover, *, held: float, ended: bool) -> Loss:
        return await workflow.execute_activity(
            WATCH_LOSS,
            Hold(
                cluster=story.cluster,
                cluster_epoch=story.cluster_epoch,
                since_ns=story.since_ns,
                held_seconds=held,
                ended=ended,
            ),
            result_type=Loss,
            start_to_close_timeout=STEP_TIMEOUT,
            heartbeat_timeout=STEP_SILENCE,
            retry_policy=PATIENT,
        )

    async def _take_over(self, story: Failover) -> Taken:
        return await workflow.execute_activity(
            TAKE_OVER_BATCH,
            Batch(cluster=story.cluster, cluster_epoch=story.cluster_epoch, limit=story.batch),
            result_type=Taken,
            start_to_close_timeout=STEP_TIMEOUT,
            heartbeat_timeout=STEP_SILENCE,
            retry_policy=PATIENT,
        )

    async def _summarize(self, story: Failover) -> Summary:
        return await workflow.execute_activity(
            SUMMARIZE,
            story,
            result_type=Summary,
            start_to_close_timeout=STEP_TIMEOUT,
            heartbeat_timeout=STEP_SILENCE,
            retry_policy=PATIENT,
        )
