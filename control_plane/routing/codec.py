"""Placement messages between the wire and the values of `port.py`."""

from whimbrel.codec import policy_to_wire, resources_from_wire, resources_to_wire
from whimbrel.wire.v1 import placement_pb2

from control_plane.routing.port import (
    Capacity,
    Decision,
    LiveCluster,
    Offer,
    Registration,
    Requirement,
    Verdict,
)


def requirement_to_wire(value: Requirement) -> placement_pb2.Requirement:
    return placement_pb2.Requirement(
        execution=value.execution,
        policy=policy_to_wire(value.policy),
        largest=resources_to_wire(value.largest),
        avoid=value.avoid,
        allowed_regions=value.allowed_regions,
        images=value.images,
        secrets=value.secrets,
        only=value.only,
    )


def decision_from_wire(message: placement_pb2.Placement) -> Decision:
    return Decision(
        execution=message.execution,
        cluster=message.cluster,
        region=message.region,
        reason=message.reason,
        verdicts=tuple(verdict_from_wire(verdict) for verdict in message.verdicts),
        decided_ns=message.decided_ns,
    )


def verdict_from_wire(message: placement_pb2.Verdict) -> Verdict:
    return Verdict(
        cluster=message.cluster,
        accepted=message.accepted,
        rule=message.rule,
        why=message.why,
        score=message.score,
        region=message.region,
    )


def verdict_to_wire(value: Verdict) -> placement_pb2.Verdict:
    return placement_pb2.Verdict(
        cluster=value.cluster,
        accepted=value.accepted,
        rule=value.rule,
        why=value.why,
        score=value.score,
        region=value.region,
    )


def registration_to_wire(value: Registration) -> placement_pb2.Registration:
    return placement_pb2.Registration(
        name=value.name,
        region=value.region,
        labels=dict(value.labels),
        scheduling=value.scheduling,
    )


def registration_from_wire(message: placement_pb2.Registration) -> Registration:
    return Registration(
        name=message.name,
        region=message.region,
        labels=tuple(sorted(message.labels.items())),
        scheduling=message.scheduling,
    )


def live_from_wire(message: placement_pb2.LiveCluster) -> LiveCluster:
    return LiveCluster(
        name=message.registration.name,
        region=message.registration.region,
        scheduling=message.registration.scheduling,
        alive=message.alive,
        suspected=message.suspected,
        cluster_epoch=message.cluster_epoch,
        lost_since_ns=message.lost_since_ns,
        capacity=capacity_from_wire(message.capacity),
        gateway=message.gateway,
    )


def live_to_wire(value: LiveCluster, registration: Registration) -> placement_pb2.LiveCluster:
    return placement_pb2.LiveCluster(
        registration=registration_to_wire(registration),
        alive=value.alive,
        suspected=value.suspected,
        cluster_epoch=value.cluster_epoch,
        lost_since_ns=value.lost_since_ns,
        capacity=capacity_to_wire(value.capacity),
        gateway=value.gateway,
    )


def capacity_from_wire(message: placement_pb2.Capacity) -> Capacity:
    offer = message.offer
    return Capacity(
        allocatable=resources_from_wire(message.allocatable),
        free=resources_from_wire(message.free),
        max_executions=message.max_executions,
        held_executions=message.held_executions,
        running_tasks=message.running_tasks,
        queued_tasks=message.queued_tasks,
        ill=message.compute_why if message.compute_ill else "",
        offer=Offer(tuple(offer.images), tuple(offer.refused_images), tuple(offer.secrets))
        if message.HasField("offer")
        else None,
    )


def capacity_to_wire(value: Capacity) -> placement_pb2.Capacity:
    offer = value.offer
    return placement_pb2.Capacity(
        allocatable=resources_to_wire(value.allocatable),
        free=resources_to_wire(value.free),
        max_executions=value.max_executions,
        held_executions=value.held_executions,
        running_tasks=value.running_tasks,
        queued_tasks=value.queued_tasks,
        compute_ill=bool(value.ill),
        compute_why=value.ill,
        offer=placement_pb2.Offer(
            images=offer.images, refused_images=offer.refused_images, secrets=offer.secrets
        )
        if offer is not None
        else None,
    )
