"""What a cluster has and what is free of it, from its nodes and our pods. Pure.

Called by `launcher.py`; the router places by it. The agent sees the pods of its own namespace only,
so what others use shows as pods that wait.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from whimbrel.spec import Resources

from data_plane_agent.pods.api_errors import Object
from data_plane_agent.pods.api_json import part, parts, text
from data_plane_agent.pods.quantities import number
from data_plane_agent.pods.sight import nanoseconds


@dataclass(frozen=True, slots=True)
class NodeSight:
    """`silent_since_ns` 0 = it is ready."""

    name: str
    schedulable: bool
    silent_since_ns: int
    allocatable: Resources

    @property
    def usable(self) -> bool:
        return self.schedulable and not self.silent_since_ns


def node_sight(node: Object, *, gpu_resource: str) -> NodeSight:
    status, metadata = part(node, "status"), part(node, "metadata")
    unknown: Object = {}
    ready = next(
        (one for one in parts(status, "conditions") if one.get("type") == "Ready"), unknown
    )
    silent = 0
    if ready.get("status") != "True":
        silent = nanoseconds(ready.get("lastTransitionTime")) or 1
    has = part(status, "allocatable")
    return NodeSight(
        name=text(metadata, "name"),
        schedulable=not part(node, "spec").get("unschedulable"),
        silent_since_ns=silent,
        allocatable=Resources(
            cpu=number(has.get("cpu")),
            mem_bytes=int(number(has.get("memory"))),
            gpu=int(number(has.get(gpu_resource))),
            ephemeral_storage_bytes=int(number(has.get("ephemeral-storage"))),
        ),
    )


def largest(nodes: Iterable[NodeSight]) -> Resources:
    """Of each resource the most that one usable node has: a pod fits into no more."""
    has = [node.allocatable for node in nodes if node.usable]
    return Resources(
        cpu=max((one.cpu for one in has), default=0.0),
        mem_bytes=max((one.mem_bytes for one in has), default=0),
        gpu=max((one.gpu for one in has), default=0),
        ephemeral_storage_bytes=max((one.ephemeral_storage_bytes for one in has), default=0),
    )


def free(nodes: Iterable[NodeSight], requested: Iterable[Resources]) -> Resources:
    """Of all usable nodes together, less what was asked for; never below zero."""
    has, asked = [node.allocatable for node in nodes if node.usable], list(requested)
    return Resources(
        cpu=max(0.0, sum(one.cpu for one in has) - sum(one.cpu for one in asked)),
        mem_bytes=max(0, sum(o.mem_bytes for o in has) - sum(o.mem_bytes for o in asked)),
        gpu=max(0, sum(one.gpu for one in has) - sum(one.gpu for one in asked)),
        ephemeral_storage_bytes=max(
            0,
            sum(one.ephemeral_storage_bytes for one in has)
            - sum(one.ephemeral_storage_bytes for one in asked),
        ),
    )


def requests_of(pod: Object, *, gpu_resource: str) -> Resources:
    asked = Resources()
    for container in parts(part(pod, "spec"), "containers"):
        has = part(part(container, "resources"), "requests")
        asked = Resources(
            asked.cpu + number(has.get("cpu")),
            asked.mem_bytes + int(number(has.get("memory"))),
            asked.gpu + int(number(has.get(gpu_resource))),
            asked.ephemeral_storage_bytes + int(number(has.get("ephemeral-storage"))),
        )
    return asked
