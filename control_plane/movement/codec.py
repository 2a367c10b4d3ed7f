"""Planned moves and drains between `views.py` and the wire."""

from whimbrel.wire.v1 import cluster_pb2, execution_pb2

from control_plane.movement.views import DrainView, MigrationView
from control_plane.routing.codec import verdict_to_wire


def migration_to_wire(view: MigrationView) -> execution_pb2.Migration:
    project, domain, name = view.execution.split("/")
    return execution_pb2.Migration(
        key=execution_pb2.ExecutionKey(project=project, domain=domain, name=name),
        number=view.number,
        cause=view.cause,
        from_cluster=view.from_cluster,
        to_cluster=view.to_cluster,
        phase=view.phase,
        reason=view.reason,
        why=view.why,
        nodes=[
            execution_pb2.NodePlan(node=one.node, what=one.what, why=one.why, bytes=one.bytes)
            for one in view.nodes
        ],
        verdicts=[verdict_to_wire(one) for one in view.verdicts],
        requested_ns=view.requested_ns,
        ended_ns=view.ended_ns,
        pause_ns=view.pause_ns,
    )


def drain_to_wire(view: DrainView) -> cluster_pb2.Drain:
    return cluster_pb2.Drain(
        cluster=view.cluster,
        number=view.number,
        phase=view.phase,
        total=view.total,
        moved=view.moved,
        ended=view.ended,
        staying=view.staying,
        started_ns=view.started_ns,
        ended_ns=view.ended_ns,
        migrations=[migration_to_wire(one) for one in view.migrations],
    )
