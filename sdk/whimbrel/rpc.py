"""The client's side of the wire: one method a call, values in, values out, our own errors.

Called by `client.py`; the only file of the SDK that dials. `codec.py` and this turn messages into
values.
"""

import json
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, TypeVar

import grpc
import grpc.aio

from whimbrel import client_errors, codec
from whimbrel.client_moves import DrainView, MigrationView, NodePlanView, RefusalView
from whimbrel.client_views import (
    ClusterView,
    ExecutionView,
    LogView,
    NodeView,
    OfferView,
    PlacementView,
    RegisteredView,
    SpanView,
    TimelineView,
    VerdictView,
)
from whimbrel.errors import Unreachable, WhimbrelError
from whimbrel.spec import PlacementPolicy, WorkflowSpec
from whimbrel.wire.v1 import (
    cluster_pb2,
    cluster_pb2_grpc,
    execution_pb2,
    execution_pb2_grpc,
    placement_pb2,
    registry_pb2,
    registry_pb2_grpc,
)

T = TypeVar("T")

CALL_SECONDS = 30.0
"""Of one call that does not stream. Too short gives up on a busy server, too long hangs on a dead
one."""
CHUNK_BYTES = 1024 * 1024
OPTIONS: tuple[tuple[str, Any], ...] = (
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
    ("grpc.max_send_message_length", 64 * 1024 * 1024),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 5_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.use_local_subchannel_pool", 1),
)
REMEDY = (
    "start one with `whimbrel up`, or name another endpoint with --endpoint or WHIMBREL_ENDPOINT"
)


def execution_view(message: execution_pb2.Execution) -> ExecutionView:
    return ExecutionView(
        project=message.key.project,
        domain=message.key.domain,
        name=message.key.name,
        workflow=message.workflow.name,
        version=message.workflow.version,
        phase=codec.phase_from_wire(message.phase),
        reason=message.reason,
        region=message.region,
        cluster=message.cluster,
        epoch=message.epoch,
        inputs=json.loads(message.inputs_json or "{}"),
        outputs=json.loads(message.outputs_json) if message.outputs_json else None,
        error=codec.failure_from_wire(message.error) if message.HasField("error") else None,
        created_ns=message.created_ns,
        started_ns=message.started_ns,
        ended_ns=message.ended_ns,
        trace_id=message.trace_id,
        mode=message.mode,
        nodes=tuple(
            NodeView(
                id=node.id,
                task=node.task,
                phase=node.phase,
                attempt=node.attempt,
                epoch=node.epoch,
                cluster=node.cluster,
                cache=node.cache,
                checkpoint=node.checkpoint,
                started_ns=node.started_ns,
                ended_ns=node.ended_ns,
                error=codec.failure_from_wire(node.error) if node.HasField("error") else None,
                lineage=node.lineage,
                host=node.host,
                avoided=tuple(node.avoided),
                user_failures=node.user_failures,
                system_failures=node.system_failures,
            )
            for node in message.nodes
        ),
        placements=tuple(
            PlacementView(
                epoch=placement.epoch,
                cluster=placement.cluster,
                region=placement.region,
                cause=placement.cause,
                reason=placement.reason,
                decided_ns=placement.decided_ns,
                verdicts=tuple(
                    VerdictView(v.cluster, v.region, v.accepted, v.rule, v.why, v.score)
                    for v in placement.verdicts
                ),
            )
            for placement in message.placements
        ),
        timeline=tuple(
            TimelineView(entry.at_ns, entry.epoch, entry.kind, entry.cluster, entry.text)
            for entry in message.timeline
        ),
        next_look_ns=message.next_look_ns,
        migration=migration_view(message.migration) if message.HasField("migration") else None,
    )


def migration_view(message: execution_pb2.Migration) -> MigrationView:
    return MigrationView(
        execution=message.key.name,
        number=message.number,
        cause=message.cause,
        from_cluster=message.from_cluster,
        to_cluster=message.to_cluster,
        phase=message.phase,
        reason=message.reason,
        why=message.why,
        nodes=tuple(NodePlanView(n.node, n.what, n.why, n.bytes) for n in message.nodes),
        refusals=tuple(
            RefusalView(verdict.cluster, verdict.rule, verdict.why)
            for verdict in message.verdicts
            if not verdict.accepted
        ),
        requested_ns=message.requested_ns,
        ended_ns=message.ended_ns,
        pause_ns=message.pause_ns,
    )


def drain_view(message: cluster_pb2.Drain) -> DrainView:
    return DrainView(
        cluster=message.cluster,
        number=message.number,
        phase=message.phase,
        total=message.total,
        moved=message.moved,
        ended=message.ended,
        staying=message.staying,
        started_ns=message.started_ns,
        ended_ns=message.ended_ns,
        migrations=tuple(migration_view(one) for one in message.migrations),
    )


def cluster_view(message: cluster_pb2.Cluster) -> ClusterView:
    said, live = message.registration, message.live
    capacity, offer = live.capacity, live.capacity.offer
    return ClusterView(
        name=said.name,
        region=said.region,
        labels=dict(said.labels),
        scheduling=said.scheduling or "active",
        alive=live.alive if message.HasField("live") else None,
        suspected=live.suspected,
        cluster_epoch=message.cluster_epoch,
        lost_since_ns=live.lost_since_ns,
        owned_executions=message.owned_executions,
        running_tasks=capacity.running_tasks,
        queued_tasks=capacity.queued_tasks,
        free=codec.resources_from_wire(capacity.free),
        allocatable=codec.resources_from_wire(capacity.allocatable),
        ill=(capacity.compute_why or "no reason given") if capacity.compute_ill else "",
        offer=OfferView(tuple(offer.images), tuple(offer.refused_images), tuple(offer.secrets))
        if capacity.HasField("offer")
        else None,
    )


class Wire:
    """A connection to one endpoint for one project and domain. Made and used inside one event
    loop."""

    def __init__(self, endpoint: str, *, project: str, domain: str) -> None:
        self.endpoint, self.project, self.domain = endpoint, project, domain
        self._channel = grpc.aio.insecure_channel(endpoint, options=OPTIONS)
        self._registry = registry_pb2_grpc.RegistryStub(self._channel)
        self._executions = execution_pb2_grpc.ExecutionsStub(self._channel)
        self._clusters = cluster_pb2_grpc.ClustersStub(self._channel)

    async def close(self) -> None:
        await self._channel.close(None)

    def _error(self, error: grpc.aio.AioRpcError) -> WhimbrelError:
        # Typed as pairs of text, though a -bin key carries bytes.
        metadata: Any = error.trailing_metadata() or ()
        value: Any = {str(key): item for key, item in metadata}.get(client_errors.METADATA_KEY)
        known = client_errors.error_of(error.code().name, error.details() or "", value)
        if isinstance(known, Unreachable) and value is None:
            return Unreachable(
                f"no whimbrel answers at {self.endpoint} ({error.details() or error.code().name})",
                remedy=REMEDY,
            )
        return known

    async def _call(self, method: Callable[..., Awaitable[T]], request: Any) -> T:
        try:
            return await method(request, timeout=CALL_SECONDS)
        except grpc.aio.AioRpcError as error:
            raise self._error(error) from error

    async def _stream(
        self, method: Callable[..., AsyncIterable[T]], request: Any
    ) -> AsyncIterator[T]:
        try:
            async for message in method(request):
                yield message
        except grpc.aio.AioRpcError as error:
            raise self._error(error) from error

    def _key(self, name: str) -> execution_pb2.ExecutionKey:
        return execution_pb2.ExecutionKey(project=self.project, domain=self.domain, name=name)

    def _version_key(self, name: str, version: str) -> registry_pb2.VersionKey:
        return registry_pb2.VersionKey(
            project=self.project, domain=self.domain, name=name, version=version
        )

    # -- registry ---------------------------------------------------------------------------------

    async def has_bundle(self, digest: str) -> tuple[bool, int]:
        """Whether it is there, and the limit in bytes for one that is not."""
        reply = await self._call(
            self._registry.HasBundle, registry_pb2.HasBundleRequest(digest=digest)
        )
        return reply.present, reply.limit_bytes

    async def put_bundle(self, digest: str, data: bytes) -> None:
        async def chunks() -> AsyncIterator[registry_pb2.BundleChunk]:
            for start in range(0, max(len(data), 1), CHUNK_BYTES):
                yield registry_pb2.BundleChunk(
                    digest="" if start else digest, data=data[start : start + CHUNK_BYTES]
                )

        await self._call(self._registry.PutBundle, chunks())

    async def register(
        self, workflows: Sequence[WorkflowSpec], *, version: str
    ) -> tuple[RegisteredView, ...]:
        request = registry_pb2.RegisterRequest(
            project=self.project,
            domain=self.domain,
            version=version,
            workflows=[codec.workflow_to_wire(item) for item in workflows],
        )
        reply = await self._call(self._registry.Register, request)
        return tuple(
            RegisteredView(item.key.name, item.key.version, item.digest, item.created)
            for item in reply.registered
        )

    async def workflow(self, name: str, *, version: str = "") -> WorkflowSpec:
        request = registry_pb2.GetVersionRequest(key=self._version_key(name, version))
        reply = await self._call(self._registry.GetVersion, request)
        return codec.workflow_from_wire(reply.workflow)

    # -- executions -------------------------------------------------------------------------------

    async def launch(
        self,
        workflow: str,
        *,
        version: str,
        inputs_json: str,
        name: str,
        placement: PlacementPolicy | None,
        dry_run: bool,
    ) -> ExecutionView:
        request = execution_pb2.LaunchRequest(
            key=self._key(name),
            workflow=self._version_key(workflow, version),
            inputs_json=inputs_json,
            placement=None if placement is None else codec.policy_to_wire(placement),
            dry_run=dry_run,
        )
        return execution_view(await self._call(self._executions.Launch, request))

    async def get(self, name: str) -> ExecutionView:
        request = execution_pb2.GetExecutionRequest(key=self._key(name))
        return execution_view(await self._call(self._executions.Get, request))

    async def list(
        self, *, phases: Sequence[str] = (), limit: int = 0, before: str = ""
    ) -> tuple[ExecutionView, ...]:
        request = execution_pb2.ListExecutionsRequest(
            project=self.project,
            domain=self.domain,
            phases=[execution_pb2.Phase.Value(phase) for phase in phases],
            limit=limit,
            before=before,
        )
        reply = await self._call(self._executions.List, request)
        return tuple(execution_view(item) for item in reply.executions)

    async def watch(self, name: str, *, end_only: bool) -> AsyncIterator[ExecutionView]:
        request = execution_pb2.GetExecutionRequest(key=self._key(name), end_only=end_only)
        async for message in self._stream(self._executions.Watch, request):
            yield execution_view(message)

    async def cancel(self, name: str, *, reason: str) -> ExecutionView:
        request = execution_pb2.CancelRequest(key=self._key(name), reason=reason)
        return execution_view(await self._call(self._executions.Cancel, request))

    async def migrate(self, name: str, *, to: str, dry_run: bool) -> MigrationView:
        request = execution_pb2.MigrateRequest(key=self._key(name), to=to, dry_run=dry_run)
        return migration_view(await self._call(self._executions.Migrate, request))

    async def logs(
        self, name: str, *, node: str, attempt: int, follow: bool
    ) -> AsyncIterator[LogView]:
        request = execution_pb2.LogsRequest(
            key=self._key(name), node=node, attempt=attempt, follow=follow
        )
        async for chunk in self._stream(self._executions.Logs, request):
            yield LogView(chunk.node, chunk.attempt, chunk.stream, chunk.data)

    async def trace(self, name: str) -> tuple[str, tuple[SpanView, ...]]:
        request = execution_pb2.TraceRequest(key=self._key(name))
        reply = await self._call(self._executions.Trace, request)
        return reply.trace_id, tuple(
            SpanView(
                span_id=span.span_id,
                parent_id=span.parent_id,
                name=span.name,
                service=span.service,
                start_ns=span.start_ns,
                end_ns=span.end_ns,
                error=span.error,
                attributes=dict(span.attributes),
                links=tuple(span.links),
            )
            for span in reply.spans
        )

    # -- clusters ---------------------------------------------------------------------------------

    async def clusters(self) -> tuple[ClusterView, ...]:
        reply = await self._call(self._clusters.List, cluster_pb2.ListClustersRequest())
        return tuple(cluster_view(item) for item in reply.clusters)

    async def cluster(self, name: str) -> ClusterView:
        request = cluster_pb2.GetClusterRequest(name=name)
        return cluster_view(await self._call(self._clusters.Get, request))

    async def register_cluster(self, name: str, *, region: str) -> ClusterView:
        registration = placement_pb2.Registration(name=name, region=region, scheduling="active")
        request = cluster_pb2.RegisterClusterRequest(registration=registration)
        return cluster_view(await self._call(self._clusters.Register, request))

    async def set_scheduling(self, name: str, *, scheduling: str) -> ClusterView:
        request = cluster_pb2.SetSchedulingRequest(name=name, scheduling=scheduling)
        return cluster_view(await self._call(self._clusters.SetScheduling, request))

    async def drain(self, *, cluster: str, region: str, dry_run: bool) -> tuple[DrainView, ...]:
        request = cluster_pb2.DrainRequest(cluster=cluster, region=region, dry_run=dry_run)
        reply = await self._call(self._clusters.Drain, request)
        return tuple(drain_view(one) for one in reply.drains)

    async def drained(self, cluster: str) -> tuple[DrainView, ...]:
        request = cluster_pb2.GetDrainRequest(cluster=cluster)
        reply = await self._call(self._clusters.GetDrain, request)
        return tuple(drain_view(one) for one in reply.drains)
