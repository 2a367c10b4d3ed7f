"""The border between the router's values and the wire: pure conversions.

Called by the doors (`rpc.py`, `gateway/rpc.py`) and by `ledger.py`. What the SDK's
codec already knows (assignments, policies, resources) is taken from there.
"""

from collections.abc import Sequence

from whimbrel import codec
from whimbrel.spec import Assignment
from whimbrel.wire.v1 import agent_pb2, ledger_pb2, placement_pb2

from router.assignments import Written
from router.clusters import Capacity, Cluster, Offer, Registration, Requirement
from router.membership import Absence
from router.placement import Placement
from router.pulse import Beat
from router.sessions import NO_REASON, Ack, Hello, Welcome
from router.streams import All, Asked, Bye, Changed, Outgoing, Removed


def open_session_request(cluster: str, *, incarnation: str, region: str) -> bytes:
    return ledger_pb2.OpenSessionRequest(
        cluster=cluster, incarnation=incarnation, region=region
    ).SerializeToString()


def cluster_epoch_of(answer: bytes) -> int:
    return ledger_pb2.OpenSessionReply.FromString(answer).cluster_epoch


def report_lost_request(cluster: str, *, cluster_epoch: int, since_ns: int) -> bytes:
    return ledger_pb2.ReportLostRequest(
        cluster=cluster, cluster_epoch=cluster_epoch, lost_since_ns=since_ns
    ).SerializeToString()


def requirement_from_wire(message: placement_pb2.Requirement) -> Requirement:
    return Requirement(
        execution=message.execution,
        policy=codec.policy_from_wire(message.policy),
        largest=codec.resources_from_wire(message.largest),
        avoid=tuple(message.avoid),
        allowed_regions=tuple(message.allowed_regions),
        images=tuple(message.images),
        secrets=tuple(message.secrets),
        only=tuple(message.only),
    )


def placement_to_wire(placement: Placement, *, decided_ns: int) -> placement_pb2.Placement:
    return placement_pb2.Placement(
        execution=placement.execution,
        cluster=placement.cluster,
        region=placement.region,
        reason=placement.reason,
        decided_ns=decided_ns,
        verdicts=[
            placement_pb2.Verdict(
                cluster=verdict.cluster,
                region=verdict.region,
                accepted=verdict.accepted,
                rule=verdict.rule,
                why=verdict.why,
                score=verdict.score,
            )
            for verdict in placement.verdicts
        ],
    )


def written_to_wire(written: Sequence[Written]) -> placement_pb2.AssignReply:
    return placement_pb2.AssignReply(
        results=[
            placement_pb2.AssignResult(written=one.written, stored_epoch=one.stored_epoch)
            for one in written
        ]
    )


def registration_from_wire(message: placement_pb2.Registration) -> Registration:
    return Registration(
        name=message.name,
        region=message.region,
        labels=dict(message.labels),
        scheduling=message.scheduling or "active",
    )


def registration_to_wire(value: Registration) -> placement_pb2.Registration:
    return placement_pb2.Registration(
        name=value.name,
        region=value.region,
        labels=dict(value.labels),
        scheduling=value.scheduling,
    )


def capacity_from_wire(message: placement_pb2.Capacity) -> Capacity:
    return Capacity(
        allocatable=codec.resources_from_wire(message.allocatable),
        free=codec.resources_from_wire(message.free),
        max_executions=message.max_executions,
        held_executions=message.held_executions,
        running_tasks=message.running_tasks,
        queued_tasks=message.queued_tasks,
        ill=(message.compute_why or NO_REASON) if message.compute_ill else "",
        offer=_offer(message.offer) if message.HasField("offer") else None,
    )


def _offer(message: placement_pb2.Offer) -> Offer:
    return Offer(tuple(message.images), tuple(message.refused_images), tuple(message.secrets))


def capacity_to_wire(value: Capacity) -> placement_pb2.Capacity:
    return placement_pb2.Capacity(
        allocatable=codec.resources_to_wire(value.allocatable),
        free=codec.resources_to_wire(value.free),
        max_executions=value.max_executions,
        held_executions=value.held_executions,
        running_tasks=value.running_tasks,
        queued_tasks=value.queued_tasks,
        compute_ill=bool(value.ill),
        compute_why=value.ill,
        offer=placement_pb2.Offer(
            images=value.offer.images,
            refused_images=value.offer.refused_images,
            secrets=value.offer.secrets,
        )
        if value.offer is not None
        else None,
    )


def live_cluster_to_wire(cluster: Cluster, absence: Absence | None) -> placement_pb2.LiveCluster:
    session = cluster.session
    return placement_pb2.LiveCluster(
        registration=registration_to_wire(cluster.registration),
        alive=cluster.alive,
        suspected=cluster.suspected,
        cluster_epoch=session.cluster_epoch
        if session
        else (absence.cluster_epoch if absence else 0),
        lost_since_ns=absence.since_ns if absence and not session else 0,
        capacity=capacity_to_wire(cluster.capacity) if cluster.capacity else None,
        gateway=session.gateway if session else "",
    )


def hello_from_wire(message: agent_pb2.Hello) -> Hello:
    return Hello(
        cluster=message.cluster,
        incarnation=message.incarnation,
        region=message.region,
        resume_session=message.resume_session,
        capacity=capacity_from_wire(message.capacity) if message.HasField("capacity") else None,
    )


def welcome_to_wire(value: Welcome) -> agent_pb2.RouterMessage:
    return agent_pb2.RouterMessage(
        welcome=agent_pb2.Welcome(
            session=value.session,
            cluster_epoch=value.cluster_epoch,
            ttl_ms=round(value.ttl * 1000),
            heartbeat_ms=round(value.heartbeat * 1000),
            resumed=value.resumed,
        )
    )


def outgoing_to_wire(value: Outgoing) -> agent_pb2.RouterMessage:
    match value:
        case All(assignments):
            return agent_pb2.RouterMessage(all=_set(assignments))
        case Changed(assignments):
            return agent_pb2.RouterMessage(changed=_set(assignments))
        case Removed(assignments):
            return agent_pb2.RouterMessage(removed=_set(assignments))
        case Asked(question):
            return agent_pb2.RouterMessage(question=question)
        case Bye(reason):
            return bye(reason)


def bye(reason: str) -> agent_pb2.RouterMessage:
    return agent_pb2.RouterMessage(bye=agent_pb2.Bye(reason=reason))


def _set(assignments: Sequence[Assignment]) -> agent_pb2.AssignmentSet:
    return agent_pb2.AssignmentSet(
        assignments=[codec.assignment_to_wire(one) for one in assignments]
    )


def beat_from_wire(message: agent_pb2.Heartbeat) -> Beat:
    return Beat(
        session=message.session,
        cluster=message.cluster,
        cluster_epoch=message.cluster_epoch,
        n=message.n,
        last_ack_n=message.last_ack_n,
        engine_progress=message.engine_progress,
        work_pending=message.work_pending,
        compute_ok=message.compute_ok,
        held=message.held_digest,
    )


def capacity_of(message: agent_pb2.Heartbeat) -> Capacity | None:
    return capacity_from_wire(message.capacity) if message.HasField("capacity") else None


def ack_to_wire(ack: Ack, beat: agent_pb2.Heartbeat) -> agent_pb2.HeartbeatAck:
    return agent_pb2.HeartbeatAck(
        n=beat.n,
        t_send_ns=beat.t_send_ns,
        renewed=ack.renewed,
        session_over=ack.session_over,
    )
