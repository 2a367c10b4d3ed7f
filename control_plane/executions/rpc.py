"""gRPC `Executions`: runs as people see them. Turns messages into values and back."""

from collections.abc import AsyncIterator
from typing import Any

from whimbrel.errors import Refused
from whimbrel.spec import Phase
from whimbrel.wire.v1 import execution_pb2, execution_pb2_grpc

from control_plane.executions import codec
from control_plane.executions.logs import Logs
from control_plane.executions.service import Executions
from control_plane.executions.view import View
from control_plane.executions.watch import Watch
from control_plane.movement.codec import migration_to_wire
from control_plane.movement.service import Moves
from control_plane.traces.store import Traces


class ExecutionsServicer(execution_pb2_grpc.ExecutionsServicer):
    def __init__(
        self, executions: Executions, *, moves: Moves, watch: Watch, logs: Logs,
        traces: Traces | None,
    ) -> None:  # fmt: skip
        self._executions = executions
        self._moves = moves
        self._watch = watch
        self._logs = logs
        self._traces = traces

    async def Launch(
        self, request: execution_pb2.LaunchRequest, context: Any
    ) -> execution_pb2.Execution:
        return codec.view_to_wire(await self._executions.launch(codec.launch_from_wire(request)))

    async def Get(
        self, request: execution_pb2.GetExecutionRequest, context: Any
    ) -> execution_pb2.Execution:
        return await self._whole(await self._executions.get(codec.id_from_wire(request.key)))

    async def _whole(self, view: View) -> execution_pb2.Execution:
        message = codec.view_to_wire(view)
        migrated = any(entry.kind == "migrating" for entry in view.timeline)
        if (migrated or view.phase is Phase.MOVING) and (
            newest := await self._moves.newest(view.id)
        ):
            message.migration.CopyFrom(migration_to_wire(newest))
        return message

    async def List(
        self, request: execution_pb2.ListExecutionsRequest, context: Any
    ) -> execution_pb2.ListExecutionsReply:
        found = await self._executions.list(codec.listing_from_wire(request))
        return execution_pb2.ListExecutionsReply(
            executions=[codec.view_to_wire(item) for item in found]
        )

    async def Watch(
        self, request: execution_pb2.GetExecutionRequest, context: Any
    ) -> AsyncIterator[execution_pb2.Execution]:
        execution = codec.id_from_wire(request.key)
        async for item in self._watch.follow(execution, end_only=request.end_only):
            yield await self._whole(item)

    async def Cancel(
        self, request: execution_pb2.CancelRequest, context: Any
    ) -> execution_pb2.Execution:
        return codec.view_to_wire(
            await self._executions.cancel(codec.id_from_wire(request.key), reason=request.reason)
        )

    async def Migrate(
        self, request: execution_pb2.MigrateRequest, context: Any
    ) -> execution_pb2.Migration:
        asked = self._moves.plan if request.dry_run else self._moves.migrate
        return migration_to_wire(await asked(codec.id_from_wire(request.key), to=request.to))

    async def Logs(
        self, request: execution_pb2.LogsRequest, context: Any
    ) -> AsyncIterator[execution_pb2.LogChunk]:
        async for piece in self._logs.read(
            codec.id_from_wire(request.key),
            node=request.node,
            attempt=request.attempt,
            follow=request.follow,
            who=context.peer(),
        ):
            yield codec.piece_to_wire(piece)

    async def Trace(
        self, request: execution_pb2.TraceRequest, context: Any
    ) -> execution_pb2.TraceReply:
        trace_id = await self._executions.trace_of(codec.id_from_wire(request.key))
        if self._traces is None:
            raise Refused(
                f"this control plane keeps no traces; the run's trace id is {trace_id or 'none'}",
                remedy="ask your trace store for it, or set WHIMBREL_CONTROL_PLANE_KEEP_TRACES",
            )
        spans = await self._traces.of(trace_id)
        return execution_pb2.TraceReply(
            trace_id=trace_id, spans=[codec.span_to_wire(span) for span in spans]
        )
