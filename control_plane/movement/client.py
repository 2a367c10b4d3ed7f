"""The door to the durable stories: starts them, and runs the worker that tells them.

Called by the ledger (a session was lost) and the sweeper (a row that nobody looks after); hands to
Temporal, which hands to `failover.py` and `move.py`. Temporal may be away: a start that fails
changes nothing and is repeated.
"""

import asyncio
import logging
import os
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from opentelemetry import trace
from temporalio.client import Client
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.contrib.opentelemetry import TracingInterceptor
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from control_plane.movement.failover import ClusterFailoverWorkflow
from control_plane.movement.move import MoveWorkflow
from control_plane.movement.registry import activities_of
from control_plane.movement.steps import Failover, Move, Steps, failover_id, move_id

log = logging.getLogger(__name__)

TASK_QUEUE = "whimbrel-movement"


@dataclass(frozen=True, slots=True)
class Pace:
    """How the stories are told; each is a setting of the control plane."""

    batch: int = 100
    rate: float = 200.0
    hold_max_seconds: float = 300.0
    claim_grace_seconds: float = 5.0
    claim_timeout_seconds: float = 15.0


class MovementOff:
    """No Temporal is configured: nothing moves, and that is said each time it would have."""

    async def lost(self, cluster: str, cluster_epoch: int, *, since_ns: int) -> None:
        log.error(
            "movement is off (no temporal address): what %s owned in session %s stays where it is",
            cluster,
            cluster_epoch,
        )

    async def move(self, execution: str, epoch: int, *, cause: str) -> None:
        log.error(
            "movement is off (no temporal address): the execution stays where it is",
            extra={"execution": execution, "epoch": epoch},
        )

    async def run(self) -> None:
        log.warning("movement is off: set WHIMBREL_CONTROL_PLANE_TEMPORAL to a host:port")
        await asyncio.Event().wait()


class TemporalMovement:
    """Starts stories and runs the worker. `run` belongs in the process's task group and ends when
    cancelled."""

    def __init__(
        self,
        address: str,
        *,
        steps: Steps,
        pace: Pace | None = None,
        namespace: str = "default",
        tracer: trace.Tracer | None = None,
        retry_seconds: float = 1.0,
    ) -> None:
        self._address = address
        self._namespace = namespace
        self._steps = steps
        self._pace = pace or Pace()
        self._tracer = tracer
        self._retry_seconds = retry_seconds
        self._client: Client | None = None
        self.connected = asyncio.Event()

    async def lost(self, cluster: str, cluster_epoch: int, *, since_ns: int) -> None:
        pace = self._pace
        story = Failover(
            cluster=cluster,
            cluster_epoch=cluster_epoch,
            since_ns=since_ns,
            batch=pace.batch,
            rate=pace.rate,
            hold_max_seconds=pace.hold_max_seconds,
            claim_grace_seconds=pace.claim_grace_seconds,
        )
        await self._start(
            ClusterFailoverWorkflow.run, story, id=failover_id(cluster, cluster_epoch)
        )

    async def move(self, execution: str, epoch: int, *, cause: str) -> None:
        story = Move(
            execution=execution,
            epoch=epoch,
            cause=cause,
            claim_timeout_seconds=self._pace.claim_timeout_seconds,
        )
        await self._start(MoveWorkflow.run, story, id=move_id(execution, epoch))

    async def _start(self, story: Any, argument: object, *, id: str) -> None:
        client = self._client
        if client is None:
            log.warning("%s not started: Temporal at %s is away", id, self._address)
            return
        try:
            await client.start_workflow(
                story,
                argument,
                id=id,
                task_queue=TASK_QUEUE,
                id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
                id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
                # A worker killed in the middle of a decision is noticed after this.
                task_timeout=timedelta(seconds=5),
                rpc_timeout=timedelta(seconds=5),
            )
        except WorkflowAlreadyStartedError:
            return  # told before, to its end
        except RPCError as error:
            log.warning("%s not started: Temporal answers %s", id, error.message)
            return
        log.debug("story %s is told", id)

    async def run(self) -> None:
        """Connect, tell stories; begin again whenever Temporal comes back."""
        away = False
        while True:
            try:
                client = await self._connect()
                worker = make_worker(client, self._steps)
                self._client = client
                self.connected.set()
                log.info("movement uses Temporal at %s", self._address)
                away = False
                await worker.run()
            except (RuntimeError, RPCError, OSError) as error:
                # Core says so as a RuntimeError, when connecting and when it can't poll.
                if not away:
                    log.warning("Temporal at %s is away: %s", self._address, error)
                away = True
                await asyncio.sleep(self._retry_seconds)

    async def _connect(self) -> Client:
        return await Client.connect(
            self._address,
            namespace=self._namespace,
            data_converter=pydantic_data_converter,
            interceptors=[TracingInterceptor(self._tracer)],
        )


def make_worker(client: Client, steps: Steps) -> Worker:
    """Unsandboxed: our stories import values and nothing else; replay of saved histories guards
    determinism. Few workflow tasks at once, or a busy machine trips Temporal's two-second deadlock
    detector."""
    return Worker(
        client,
        task_queue=TASK_QUEUE,
        workflows=[ClusterFailoverWorkflow, MoveWorkflow],
        activities=activities_of(steps),
        workflow_runner=UnsandboxedWorkflowRunner(),
        max_concurrent_workflow_tasks=max(2, 4 * (os.cpu_count() or 1)),
        max_concurrent_activities=16,
        # A killed worker's stories wait this long for it before another gets them.
        sticky_queue_schedule_to_start_timeout=timedelta(seconds=2),
        graceful_shutdown_timeout=timedelta(seconds=5),
    )
