"""Composition root: settings -> adapters -> services -> servers, every task with a name.

Started by `whimbrel up` or a person; nothing else constructs an adapter.
"""

import asyncio
import logging
import sys
from functools import partial

import grpc.aio
from pydantic import ValidationError
from pydantic_settings import CliApp
from whimbrel.errors import WhimbrelError
from whimbrel.service.http import serve_http
from whimbrel.service.logs import setup_logging
from whimbrel.service.process import run_until_stopped
from whimbrel.service.rpc import channel, serve
from whimbrel.service.telemetry import setup_tracing, stop_tracing
from whimbrel.wire.v1 import (
    cluster_pb2_grpc,
    execution_pb2_grpc,
    ledger_pb2_grpc,
    registry_pb2_grpc,
)

from control_plane.clusters.rpc import ClustersServicer
from control_plane.clusters.service import Clusters
from control_plane.database import Database
from control_plane.executions.changes import Changes
from control_plane.executions.delivery import Delivery
from control_plane.executions.dispatch import Dispatch
from control_plane.executions.dispatcher import Dispatcher
from control_plane.executions.exclusive import OldCopies
from control_plane.executions.logs import Logs
from control_plane.executions.rpc import ExecutionsServicer
from control_plane.executions.service import Executions
from control_plane.executions.sweeper import Sweeper
from control_plane.executions.watch import Watch
from control_plane.ledger.rpc import LedgerServicer
from control_plane.ledger.service import Ledger
from control_plane.migrations.upgrade import upgrade
from control_plane.movement.activities import MovementSteps
from control_plane.movement.client import Pace, TemporalMovement
from control_plane.movement.copying import copy_to
from control_plane.movement.draining import Draining
from control_plane.movement.migrating import Leaving
from control_plane.movement.off import MovementOff
from control_plane.movement.planned import PlannedSteps
from control_plane.movement.replication import Replication
from control_plane.movement.service import Moves
from control_plane.movement.settling import Settling
from control_plane.registry.bundles import Bundles
from control_plane.registry.graphs import Graphs
from control_plane.registry.rpc import RegistryServicer
from control_plane.registry.service import Registry
from control_plane.routing.rpc import GrpcRouter
from control_plane.settings import Settings
from control_plane.traces.local import LocalExporter
from control_plane.traces.rpc import add_collector
from control_plane.traces.spans import Spans
from control_plane.traces.store import Traces

LOG = logging.getLogger("control_plane")


async def run(settings: Settings, stop: asyncio.Event) -> None:
    """Serves until `stop` is set."""
    database = Database(settings.database_url)
    await upgrade(database)
    router = GrpcRouter(channel(settings.router))
    traces = Traces(settings.traces) if settings.keep_traces else None
    exporter = LocalExporter(traces) if traces and not settings.otlp_endpoint else None
    tracer = setup_tracing("control-plane", endpoint=settings.otlp_endpoint, exporter=exporter)
    spans, graphs, changes = Spans(tracer), Graphs(), Changes()
    dispatch = Dispatch(
        database, router, spans, no_room_seconds=settings.no_room_seconds,
        old_copies=OldCopies(
            database, router, margin_seconds=settings.exclusive_margin_seconds
        ),
    )  # fmt: skip
    dispatcher = Dispatcher(dispatch, changes)
    delivery = Delivery(database, router, dispatcher=dispatcher, changes=changes)
    movement = (
        TemporalMovement(
            settings.temporal,
            steps=MovementSteps(database, router=router, dispatch=dispatch, graphs=graphs),
            pace=Pace(
                batch=settings.failover_batch,
                rate=settings.failover_rate,
                hold_max_seconds=settings.hold_max_seconds,
                claim_timeout_seconds=settings.claim_timeout_seconds,
                quiesce_seconds=settings.migrate_quiesce_seconds,
                drain_at_once=settings.drain_at_once,
            ),
            tracer=tracer,
        )
        if settings.temporal
        else MovementOff()
    )
    registry = Registry(database, Bundles(settings.bundles))
    clusters = Clusters(database, router)
    moves = Moves(database, router, graphs=graphs, clusters=clusters, stories=movement)
    leaving = Leaving(database, router, graphs=graphs, copy=partial(copy_to, database, router))
    settling = Settling(database, dispatch=dispatch, graphs=graphs, copied=leaving.copied)
    planned = PlannedSteps(leaving, settling, Draining(database, moves))
    executions = Executions(
        database, router, graphs=graphs, dispatcher=dispatcher, delivery=delivery,
        changes=changes, spans=spans, region=settings.region,
    )  # fmt: skip
    ledger = Ledger(
        database, clusters=clusters, registry=registry, graphs=graphs, movement=movement,
        delivery=delivery, changes=changes, spans=spans, region=settings.region,
    )  # fmt: skip
    sweeper = Sweeper(
        database, router, dispatch=dispatch, dispatcher=dispatcher, delivery=delivery,
        movement=movement, changes=changes,
        claim_timeout_seconds=settings.claim_timeout_seconds,
    )  # fmt: skip
    watch = Watch(database, graphs, changes)
    logs = Logs(executions, router)

    def doors(server: grpc.aio.Server) -> None:
        ledger_pb2_grpc.add_LedgerServicer_to_server(LedgerServicer(ledger), server)
        registry_pb2_grpc.add_RegistryServicer_to_server(RegistryServicer(registry), server)
        cluster_pb2_grpc.add_ClustersServicer_to_server(ClustersServicer(clusters, moves), server)
        execution_pb2_grpc.add_ExecutionsServicer_to_server(
            ExecutionsServicer(executions, moves=moves, watch=watch, logs=logs, traces=traces),
            server,
        )
        if traces is not None:
            add_collector(traces, server)

    try:
        server = await serve(doors, listen=settings.listen)
        http = await serve_http(settings.http)
        LOG.info("listening on %s", settings.listen)
        async with asyncio.TaskGroup() as tasks:
            running = [
                tasks.create_task(dispatcher.run(), name="dispatch"),
                tasks.create_task(delivery.run(), name="deliver wake-ups"),
                tasks.create_task(sweeper.run(), name="sweep"),
                tasks.create_task(clusters.keep_synced(), name="copy registrations"),
                tasks.create_task(Replication(database, router).run(), name="replicate"),
                tasks.create_task(movement.run(planned), name="tell stories"),
                tasks.create_task(moves.keep_told(), name="look for untold moves"),
            ]
            if traces is not None:
                running.append(tasks.create_task(traces.run(), name="keep spans"))
            await stop.wait()
            await server.stop(settings.stop_seconds)
            if http is not None:
                http.close()
            for task in running:
                task.cancel()
    finally:
        await asyncio.to_thread(stop_tracing)
        if traces is not None:
            await traces.close()
        await router.close()
        await database.close()


def main() -> int:
    try:
        settings = CliApp.run(Settings)
    except ValidationError as error:
        for problem in error.errors():
            where = ".".join(str(part) for part in problem["loc"]) or "settings"
            print(f"control_plane: {where}: {problem['msg']}", file=sys.stderr)  # noqa: T201
        return 2
    setup_logging("control-plane", settings.log_level, settings.log_format)
    try:
        asyncio.run(run_until_stopped(lambda stop: run(settings, stop)))
    except WhimbrelError as error:
        print(f"control_plane: {error}", file=sys.stderr)  # noqa: T201
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
