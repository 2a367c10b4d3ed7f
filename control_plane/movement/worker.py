"""The workers that tell stories and do their steps.

Made by `client.py` for each connection to Temporal. Stories change by markers
(`workflow.patched`), so a worker of the next version finishes what one of this version began; the
build id only says in Temporal's histories who told what.
"""

import os
from datetime import timedelta
from importlib.metadata import version

from temporalio.client import Client
from temporalio.common import WorkerDeploymentVersion
from temporalio.worker import UnsandboxedWorkflowRunner, Worker, WorkerDeploymentConfig

from control_plane.movement.drain import ClusterDrainWorkflow
from control_plane.movement.failover import ClusterFailoverWorkflow
from control_plane.movement.migrate import MigrateWorkflow
from control_plane.movement.move import MoveWorkflow
from control_plane.movement.planned import PlannedSteps
from control_plane.movement.registry import activities_of, planned_activities_of
from control_plane.movement.steps import PLANNED_QUEUE, TASK_QUEUE, Steps

STORIES = (ClusterFailoverWorkflow, MoveWorkflow, MigrateWorkflow, ClusterDrainWorkflow)


def make_worker(client: Client, steps: Steps) -> Worker:
    """Unsandboxed: our stories import values and nothing else; replay of saved histories guards
    determinism. Few workflow tasks at once, or a busy machine trips Temporal's two-second deadlock
    detector."""
    return Worker(
        client,
        task_queue=TASK_QUEUE,
        workflows=list(STORIES),
        activities=activities_of(steps),
        workflow_runner=UnsandboxedWorkflowRunner(),
        max_concurrent_workflow_tasks=max(2, 4 * (os.cpu_count() or 1)),
        max_concurrent_activities=16,
        # A killed worker's stories wait this long for it before another gets them.
        sticky_queue_schedule_to_start_timeout=timedelta(seconds=2),
        graceful_shutdown_timeout=timedelta(seconds=5),
        deployment_config=deployment(),
    )


def make_planned_worker(client: Client, steps: PlannedSteps) -> Worker:
    """Steps that wait for an agent to let go take a place each, cheaply."""
    return Worker(
        client,
        task_queue=PLANNED_QUEUE,
        activities=planned_activities_of(steps),
        max_concurrent_activities=256,
        graceful_shutdown_timeout=timedelta(seconds=1),
        deployment_config=deployment(),
    )


def deployment() -> WorkerDeploymentConfig:
    """Unversioned routing: a story must not wait for a worker of a version that is gone."""
    return WorkerDeploymentConfig(
        version=WorkerDeploymentVersion(deployment_name="whimbrel", build_id=version("whimbrel")),
        use_worker_versioning=False,
    )
