"""Runs between the wire and `view.py`."""

from whimbrel.codec import (
    artifact_to_wire,
    failure_to_wire,
    phase_from_wire,
    phase_to_wire,
    policy_from_wire,
)
from whimbrel.errors import InvalidInput
from whimbrel.wire.v1 import execution_pb2, placement_pb2, registry_pb2

from control_plane.executions.logs import Piece
from control_plane.executions.service import Launch, Listing
from control_plane.executions.view import NodeView, PlacementView, View
from control_plane.registry.rpc import key_from_wire
from control_plane.routing.codec import verdict_to_wire
from control_plane.traces.store import Span


def launch_from_wire(message: execution_pb2.LaunchRequest) -> Launch:
    workflow = key_from_wire(message.workflow)
    return Launch(
        project=message.key.project or workflow.project,
        domain=message.key.domain or workflow.domain,
        name=message.key.name,
        workflow=workflow,
        inputs=message.inputs_json,
        policy=policy_from_wire(message.placement) if message.HasField("placement") else None,
        traceparent=message.traceparent,
        dry_run=message.dry_run,
    )


def id_from_wire(message: execution_pb2.ExecutionKey) -> str:
    if not (message.project and message.domain and message.name):
        raise InvalidInput("an execution is named by project, domain and name")
    return f"{message.project}/{message.domain}/{message.name}"


def listing_from_wire(message: execution_pb2.ListExecutionsRequest) -> Listing:
    return Listing(
        project=message.project,
        domain=message.domain,
        phases=tuple(phase_from_wire(phase) for phase in message.phases),
        limit=message.limit,
        before=message.before,
    )


def view_to_wire(view: View) -> execution_pb2.Execution:
    project, domain, name = view.id.split("/")
    return execution_pb2.Execution(
        key=execution_pb2.ExecutionKey(project=project, domain=domain, name=name),
        workflow=registry_pb2.VersionKey(
            project=project, domain=domain, name=view.workflow, version=view.version
        ),
        phase=phase_to_wire(view.phase),
        reason=view.reason,
        region=view.region,
        cluster=view.cluster,
        epoch=view.epoch,
        inputs_json=view.inputs,
        outputs_json=view.outputs,
        error=failure_to_wire(view.error) if view.error else None,
        created_ns=view.created_ns,
        started_ns=view.started_ns,
        ended_ns=view.ended_ns,
        trace_id=view.trace_id,
        nodes=[node_to_wire(node) for node in view.nodes],
        placements=[placement_to_wire(view.id, item) for item in view.placements],
        timeline=[
            execution_pb2.TimelineEntry(
                at_ns=entry.at_ns,
                epoch=entry.epoch,
                kind=entry.kind,
                cluster=entry.cluster,
                text=entry.text,
            )
            for entry in view.timeline
        ],
        mode=view.mode,
        next_look_ns=view.next_look_ns,
    )


def node_to_wire(node: NodeView) -> execution_pb2.Node:
    return execution_pb2.Node(
        id=node.id,
        task=node.task,
        phase=node.phase,
        attempt=node.attempt,
        epoch=node.epoch,
        cluster=node.cluster,
        cache="DISABLED",
        checkpoint=node.checkpoint,
        started_ns=node.started_ns,
        ended_ns=node.ended_ns,
        error=failure_to_wire(node.error) if node.error else None,
        outputs_json=node.outputs,
        lineage=node.lineage,
        stdout=artifact_to_wire(node.stdout) if node.stdout else None,
        stderr=artifact_to_wire(node.stderr) if node.stderr else None,
        host=node.host,
        avoided=node.avoided,
        user_failures=node.user_failures,
        system_failures=node.system_failures,
    )


def placement_to_wire(execution: str, placement: PlacementView) -> placement_pb2.Placement:
    return placement_pb2.Placement(
        execution=execution,
        epoch=placement.epoch,
        cluster=placement.cluster,
        region=placement.region,
        reason=placement.reason,
        verdicts=[verdict_to_wire(verdict) for verdict in placement.verdicts],
        cause=placement.cause,
        decided_ns=placement.decided_ns,
    )


def piece_to_wire(piece: Piece) -> execution_pb2.LogChunk:
    return execution_pb2.LogChunk(
        node=piece.node, attempt=piece.attempt, stream=piece.stream, data=piece.data
    )


def span_to_wire(span: Span) -> execution_pb2.Span:
    return execution_pb2.Span(
        trace_id=span.trace_id,
        span_id=span.span_id,
        parent_id=span.parent_id,
        name=span.name,
        service=span.service,
        start_ns=span.start_ns,
        end_ns=span.end_ns,
        error=span.error,
        attributes=dict(span.attributes),
        links=span.links,
    )
