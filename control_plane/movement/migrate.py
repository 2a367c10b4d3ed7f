"""One run leaves a cluster that is alive: break before make, back to where it was if need be.

Started by `client.py` for a row of `migration`; each step is an activity (`migrating.py`) that
looks at the rows anew and notes the phase. Id `migrate/{execution}/{number}`: never the id of a
takeover, which this one must not use up.
"""

from datetime import timedelta
from typing import TypeVar

from temporalio import workflow

from control_plane.movement.planned import (
    CLAIMED,
    END,
    HAND_OVER,
    LONG_SECONDS,
    PREPARE,
    QUIESCE,
    RELEASED,
    RESUMED,
    SEND,
    TAKE,
    End,
    Migrate,
    Migrated,
    Send,
    Stage,
    Wait,
)
from control_plane.movement.steps import PATIENT, PLANNED_QUEUE, STEP_SILENCE, STEP_TIMEOUT

T = TypeVar("T")

ROUNDS = 5
"""How often it is placed once more because nobody claimed it; then the sweeper goes on."""


@workflow.defn
class MigrateWorkflow:
    @workflow.run
    async def run(self, story: Migrate) -> Migrated:
        # 1. PREPARE: may it, and what can be copied while the source runs on
        stage = await self._step(PREPARE, story, seconds=story.copy_seconds)
        # 2. QUIESCE, CHECKPOINT: the source is asked to save and to let go
        if not stage.over:
            stage = await self._step(QUIESCE, story)
        # 3. RELEASED, by its owner; idempotent work also without it
        if not stage.over:
            stage = await self._freed(story)
        if not stage.over:
            await self._step(HAND_OVER, story)
            # 4. FENCE, ASSIGN, CLAIMED
            stage = await self._settled(story)
        # 5. RESUMED
        if not stage.over:
            wait = Wait(story, story.resume_seconds, stage.epoch)
            stage = await self._step(RESUMED, wait, seconds=story.resume_seconds)
        return await self._step(
            END, End(story, stage.state, stage.reason, stage.why), answer=Migrated
        )

    async def _freed(self, story: Migrate) -> Stage:
        limit = story.quiesce_seconds
        while True:
            stage = await self._step(RELEASED, Wait(story, limit), seconds=limit)
            if stage.state != "silent":
                return stage
            if not stage.patient:
                return await self._step(TAKE, story)
            limit = LONG_SECONDS

    async def _settled(self, story: Migrate) -> Stage:
        stage = await self._step(SEND, Send(story))
        for _ in range(ROUNDS):
            if stage.over:
                return stage
            wait = Wait(story, story.claim_seconds, stage.epoch)
            stage = await self._step(CLAIMED, wait, seconds=story.claim_seconds)
            if stage.state != "unclaimed":
                return stage
            stage = await self._step(SEND, Send(story, unclaimed_epoch=stage.epoch))
        return Stage("FAILED", reason="unclaimed", why="no cluster claimed it in time")

    async def _step(
        self, name: str, story: object, *, answer: type[T] = Stage, seconds: float = 0.0
    ) -> T:
        return await workflow.execute_activity(
            name,
            story,
            result_type=answer,
            # Planned moves wait for agents; a takeover must never queue behind them.
            task_queue=PLANNED_QUEUE,
            start_to_close_timeout=STEP_TIMEOUT + timedelta(seconds=seconds),
            heartbeat_timeout=STEP_SILENCE,
            retry_policy=PATIENT,
        )
