"""A cluster is emptied: its runs migrate, a few at a time, until none is left that can go.

Started by `client.py` for a row of `drain`; its one step (`draining.py`) begins what is to begin
and looks how far it is, from rows alone, so a drain goes on wherever it was interrupted. Id
`drain/{cluster}/{number}`.
"""

from datetime import timedelta

from temporalio import workflow

from control_plane.movement.planned import DRAIN_SECONDS, EMPTY, Drained, Empty
from control_plane.movement.steps import PATIENT, PLANNED_QUEUE, STEP_SILENCE, STEP_TIMEOUT

LOOKS_A_RUN = 500
"""About 3,000 events of history, three hours of draining; then the story continues as new."""


@workflow.defn
class ClusterDrainWorkflow:
    @workflow.run
    async def run(self, story: Empty) -> Drained:
        for _ in range(LOOKS_A_RUN):
            look = await workflow.execute_activity(
                EMPTY,
                story,
                result_type=Drained,
                task_queue=PLANNED_QUEUE,
                start_to_close_timeout=STEP_TIMEOUT + timedelta(seconds=DRAIN_SECONDS),
                heartbeat_timeout=STEP_SILENCE,
                retry_policy=PATIENT,
            )
            if look.phase != "RUNNING":
                return look
        workflow.continue_as_new(story)
