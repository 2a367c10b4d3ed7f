"""A cluster's session is over: everything it still owned moves, in batches, at a bounded rate.

Started by `client.py` when the router reports a loss; each step is an activity (`activities.py`);
ends with a summary row. Id `failover/{cluster}/{cluster_epoch}`: one story a session, never a
second one.
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
"""History of one run stays near 2,500 events; Temporal warns at 10,000."""

GUARD_EACH_BATCH = "guard before each batch"
"""Marks the histories of stories that look again before every batch. Older ones looked once."""


@workflow.defn
class ClusterFailoverWorkflow:
    @workflow.run
    async def run(self, story: Failover) -> Summary:
        each = workflow.patched(GUARD_EACH_BATCH)
        if not each and not story.guarded:
            await self._guard(story)
            story = dataclasses.replace(story, guarded=True)
        for _ in range(BATCHES_A_RUN):
            # 1. one loss, or the whole world's? More may be gone than before the last batch
            if each:
                story = await self._guard(story)
            # 2. a batch of what the lost session owned
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

    async def _guard(self, story: Failover) -> Failover:
        """Returns when takeover may go on. Looks every second while most clusters seem gone: then
        it is more likely that we lost them than that they are dead, and idempotent work goes on
        there anyway. One hold a story: what its limit has ended is not held once more."""
        if story.hold_over:
            return story
        begun = workflow.now()
        while True:
            held = (workflow.now() - begun).total_seconds()
            ended = held >= story.hold_max_seconds
            loss = await self._look(story, held=held, ended=ended)
            if loss.returned and not story.back:
                # Its agent claims what it holds; a claimed row is no longer the lost session's.
                await workflow.sleep(timedelta(seconds=story.claim_grace_seconds))
                return dataclasses.replace(story, back=True)
            if not loss.hold:
                return story
            if ended:
                return dataclasses.replace(story, hold_over=True)
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
