"""The door to the durable stories: starts them, and runs the worker that tells them.

Called by the ledger (a session was lost), the sweeper (a row that nobody looks after) and
`service.py` (a planned move, a drain); hands to Temporal, whose workers (`worker.py`) tell them.
Temporal may be away: a start that fails changes nothing and is repeated.
"""

import asyncio
import logging
from contextlib import nullcontext
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

from control_plane.movement.drain import ClusterDrainWorkflow
from control_plane.movement.failover import ClusterFailoverWorkflow
from control_plane.movement.migrate import MigrateWorkflow
from control_plane.movement.move import MoveWorkflow
from control_plane.movement.planned import Empty, Migrate, PlannedSteps, drain_id, migrate_id
from control_plane.movement.steps import TASK_QUEUE, Failover, Move, Steps, failover_id, move_id
from control_plane.movement.worker import make_planned_worker, make_worker

log = logging.getLogger(__name__)

OURS_FIRST = 0.6
"""Of the time to claim: a move that is not claimed goes back before the sweeper places it
anywhere."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How the stories are told; each is a setting of the control plane."""

    batch: int = 100
    rate: float = 200.0
    hold_max_seconds: float = 300.0
    claim_grace_seconds: float = 5.0
    claim_timeout_seconds: float = 15.0
    quiesce_seconds: float = 60.0
    drain_at_once: int = 16


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

    async def resume(self, execution: str, number: int, *, epoch: int, cause: str) -> None:
        if not await self._migrate(execution, number, cause):
            await self.move(execution, epoch, cause=cause)

    def check(self) -> None:
        """Temporal may be away: an open row's story is told when it is back."""

    async def migrate(self, execution: str, number: int, *, cause: str) -> bool:
        return await self._migrate(execution, number, cause)

    async def _migrate(self, execution: str, number: int, cause: str) -> bool:
        story = Migrate(
            execution=execution,
            number=number,
            cause=cause,
            quiesce_seconds=self._pace.quiesce_seconds,
            claim_seconds=self._pace.claim_timeout_seconds * OURS_FIRST,
        )
        return await self._start(MigrateWorkflow.run, story, id=migrate_id(execution, number))

    async def drain(self, cluster: str, number: int) -> bool:
        story = Empty(cluster=cluster, number=number, at_once=self._pace.drain_at_once)
        return await self._start(ClusterDrainWorkflow.run, story, id=drain_id(cluster, number))

    async def _start(self, story: Any, argument: object, *, id: str) -> bool:
        """False: it has been told before, to its end."""
        client = self._client
        if client is None:
            log.warning("%s not started: Temporal at %s is away", id, self._address)
            return True
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
            return False
        except RPCError as error:
            log.warning("%s not started: Temporal answers %s", id, error.message)
            return True
        log.debug("story %s is told", id)
        return True

    async def run(self, planned: PlannedSteps | None = None) -> None:
        """Connect, tell stories; begin again whenever Temporal comes back."""
        away = False
        while True:
            try:
                client = await self._connect()
                worker = make_worker(client, self._steps)
                also = make_planned_worker(client, planned) if planned else nullcontext()
                self._client = client
                self.connected.set()
                log.info("movement uses Temporal at %s", self._address)
                away = False
                async with also:
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
