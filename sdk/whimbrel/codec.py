"""The border between the shared vocabulary and the wire: pure conversions, both ways, nothing lost.

Called by the client and by every server's `rpc.py`; takes and gives values of `spec.py`. A
specification that went over the wire has the digest it had before: JSON inside a message travels
as its text, and is kept as it was written.
"""

import json
from typing import Any

from whimbrel import spec
from whimbrel.errors import InvalidInput
from whimbrel.spec import canonical
from whimbrel.wire.v1 import execution_pb2, placement_pb2, spec_pb2

_WANTS = {
    spec.Want.RUN: placement_pb2.RUN,
    spec.Want.QUIESCE: placement_pb2.QUIESCE,
    spec.Want.CANCEL: placement_pb2.CANCEL,
}


def want_to_wire(want: spec.Want) -> placement_pb2.Want.ValueType:
    return _WANTS[want]


def _json(text: str, *, what: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as cause:
        raise InvalidInput(f"{what} is not JSON: {cause}") from cause


def artifact_to_wire(value: spec.Artifact) -> spec_pb2.Artifact:
    return spec_pb2.Artifact(
        uri=value.uri,
        sha256=value.sha256,
        bytes=value.bytes,
        region=value.region,
        kind=value.kind,
        allowed_regions=value.allowed_regions,
    )


def artifact_from_wire(message: spec_pb2.Artifact) -> spec.Artifact:
    return spec.Artifact(
        uri=message.uri,
        sha256=message.sha256,
        bytes=message.bytes,
        region=message.region,
        kind=message.kind,
        allowed_regions=tuple(message.allowed_regions),
    )


def resources_to_wire(value: spec.Resources) -> spec_pb2.Resources:
    return spec_pb2.Resources(
        cpu=value.cpu,
        mem_bytes=value.mem_bytes,
        gpu=value.gpu,
        ephemeral_storage_bytes=value.ephemeral_storage_bytes,
    )


def resources_from_wire(message: spec_pb2.Resources) -> spec.Resources:
    return spec.Resources(
        cpu=message.cpu,
        mem_bytes=message.mem_bytes,
        gpu=message.gpu,
        ephemeral_storage_bytes=message.ephemeral_storage_bytes,
    )


def _variable_to_wire(value: spec.Variable) -> spec_pb2.Variable:
    return spec_pb2.Variable(
        name=value.name,
        schema_json=canonical(value.schema),
        required=value.required,
        default_json="" if value.required else canonical(value.default),
    )


def _variable_from_wire(message: spec_pb2.Variable) -> spec.Variable:
    text = message.default_json
    return spec.Variable(
        name=message.name,
        schema=_json(message.schema_json, what=f"the schema of {message.name!r}"),
        required=message.required,
        default=_json(text, what=f"the default of {message.name!r}") if text else None,
    )


def interface_to_wire(value: spec.Interface) -> spec_pb2.Interface:
    return spec_pb2.Interface(
        inputs=[_variable_to_wire(item) for item in value.inputs],
        outputs=[_variable_to_wire(item) for item in value.outputs],
    )


def interface_from_wire(message: spec_pb2.Interface) -> spec.Interface:
    return spec.Interface(
        inputs=tuple(_variable_from_wire(item) for item in message.inputs),
        outputs=tuple(_variable_from_wire(item) for item in message.outputs),
    )


def task_to_wire(value: spec.TaskSpec) -> spec_pb2.TaskSpec:
    return spec_pb2.TaskSpec(
        name=value.name,
        entry_point=value.entry_point,
        bundle=value.bundle,
        interface=interface_to_wire(value.interface),
        requests=resources_to_wire(value.requests),
        limits=resources_to_wire(value.limits),
        retries=value.retries,
        timeout_seconds=value.timeout_seconds,
        environment=dict(value.environment),
        container_image=value.container_image,
        interruptible=value.interruptible,
        secrets=value.secrets,
        cache=spec_pb2.CacheSpec(
            enabled=value.cache.enabled,
            version=value.cache.version,
            serialize=value.cache.serialize,
            ignored_inputs=value.cache.ignored_inputs,
        ),
        warm=value.warm,
    )


def task_from_wire(message: spec_pb2.TaskSpec) -> spec.TaskSpec:
    return spec.TaskSpec(
        name=message.name,
        entry_point=message.entry_point,
        bundle=message.bundle,
        interface=interface_from_wire(message.interface),
        requests=resources_from_wire(message.requests),
        limits=resources_from_wire(message.limits),
        retries=message.retries,
        timeout_seconds=message.timeout_seconds,
        environment=dict(message.environment),
        container_image=message.container_image,
        interruptible=message.interruptible,
        secrets=tuple(message.secrets),
        cache=spec.CacheSpec(
            enabled=message.cache.enabled,
            version=message.cache.version,
            serialize=message.cache.serialize,
            ignored_inputs=tuple(message.cache.ignored_inputs),
        ),
        warm=message.warm,
    )


def binding_to_wire(value: spec.Binding) -> spec_pb2.Binding:
    match value:
        case spec.Literal(literal):
            return spec_pb2.Binding(literal_json=canonical(literal))
        case spec.InputRef(name):
            return spec_pb2.Binding(input=name)
        case spec.OutputRef(node, name, path):
            return spec_pb2.Binding(output=spec_pb2.OutputRef(node=node, name=name, path=path))
        case spec.ListBinding(items):
            messages = [binding_to_wire(item) for item in items]
            return spec_pb2.Binding(list=spec_pb2.BindingList(items=messages))
        case spec.MapBinding(items):
            by_key = {key: binding_to_wire(item) for key, item in items.items()}
            return spec_pb2.Binding(map=spec_pb2.BindingMap(items=by_key))


def binding_from_wire(message: spec_pb2.Binding) -> spec.Binding:
    match message.WhichOneof("source"):
        case "literal_json":
            return spec.Literal(_json(message.literal_json, what="a constant"))
        case "input":
            return spec.InputRef(message.input)
        case "output":
            ref = message.output
            return spec.OutputRef(ref.node, ref.name, tuple(ref.path))
        case "list":
            return spec.ListBinding(tuple(binding_from_wire(item) for item in message.list.items))
        case "map":
            items = message.map.items.items()
            return spec.MapBinding({key: binding_from_wire(item) for key, item in items})
        case None:
            raise InvalidInput("a binding of a kind that this version does not know")


def _overrides_to_wire(value: spec.NodeOverrides) -> spec_pb2.NodeOverrides:
    return spec_pb2.NodeOverrides(
        requests=None if value.requests is None else resources_to_wire(value.requests),
        limits=None if value.limits is None else resources_to_wire(value.limits),
        retries=value.retries,
        timeout_seconds=value.timeout_seconds,
    )


def _overrides_from_wire(message: spec_pb2.NodeOverrides) -> spec.NodeOverrides:
    has = message.HasField
    return spec.NodeOverrides(
        requests=resources_from_wire(message.requests) if has("requests") else None,
        limits=resources_from_wire(message.limits) if has("limits") else None,
        retries=message.retries if has("retries") else None,
        timeout_seconds=message.timeout_seconds if has("timeout_seconds") else None,
    )


def node_to_wire(value: spec.NodeSpec) -> spec_pb2.NodeSpec:
    return spec_pb2.NodeSpec(
        id=value.id,
        task=value.task,
        inputs={name: binding_to_wire(item) for name, item in value.inputs.items()},
        upstream=value.upstream,
        overrides=_overrides_to_wire(value.overrides),
    )


def node_from_wire(message: spec_pb2.NodeSpec) -> spec.NodeSpec:
    """Raises InvalidInput for a target of a later version: a graph half understood never runs."""
    if message.WhichOneof("target") != "task":
        raise InvalidInput(
            f"node {message.id!r} is of a kind that this version does not know",
            remedy="update this server, or register the workflow with an older SDK",
        )
    return spec.NodeSpec(
        id=message.id,
        task=message.task,
        inputs={name: binding_from_wire(item) for name, item in message.inputs.items()},
        upstream=tuple(message.upstream),
        overrides=_overrides_from_wire(message.overrides),
    )


def policy_to_wire(value: spec.PlacementPolicy) -> spec_pb2.PlacementPolicy:
    return spec_pb2.PlacementPolicy(
        regions=value.regions,
        clusters=value.clusters,
        mode=value.mode.value,
        failover=value.failover,
        prefer=value.prefer,
        max_wait_seconds=value.max_wait_seconds,
        replicate=value.replicate,
        priority=value.priority,
    )


def policy_from_wire(message: spec_pb2.PlacementPolicy) -> spec.PlacementPolicy:
    try:
        mode = spec.Mode(message.mode or spec.Mode.IDEMPOTENT)
    except ValueError as cause:
        known = ", ".join(spec.Mode)
        raise InvalidInput(f"mode {message.mode!r} is not one of {known}") from cause
    return spec.PlacementPolicy(
        regions=tuple(message.regions),
        clusters=tuple(message.clusters),
        mode=mode,
        failover=message.failover,
        prefer=tuple(message.prefer),
        max_wait_seconds=message.max_wait_seconds,
        replicate=tuple(message.replicate),
        priority=message.priority,
    )


def workflow_to_wire(value: spec.WorkflowSpec) -> spec_pb2.WorkflowSpec:
    return spec_pb2.WorkflowSpec(
        name=value.name,
        interface=interface_to_wire(value.interface),
        nodes=[node_to_wire(node) for node in value.nodes],
        tasks=[task_to_wire(task) for task in value.tasks],
        outputs={name: binding_to_wire(item) for name, item in value.outputs.items()},
        placement=policy_to_wire(value.placement),
        failure_policy=value.failure_policy,
        bundle=value.bundle,
    )


def workflow_from_wire(message: spec_pb2.WorkflowSpec) -> spec.WorkflowSpec:
    return spec.WorkflowSpec(
        name=message.name,
        interface=interface_from_wire(message.interface),
        nodes=tuple(node_from_wire(node) for node in message.nodes),
        tasks=tuple(task_from_wire(task) for task in message.tasks),
        outputs={name: binding_from_wire(item) for name, item in message.outputs.items()},
        placement=policy_from_wire(message.placement),
        failure_policy=message.failure_policy,
        bundle=message.bundle,
    )


def failure_to_wire(value: spec.Failure) -> execution_pb2.TaskError:
    return execution_pb2.TaskError(
        owner=value.owner.value,
        kind=value.kind,
        message=value.message,
        node=value.node,
        traceback=value.traceback,
    )


def failure_from_wire(message: execution_pb2.TaskError) -> spec.Failure:
    owners = {owner.value: owner for owner in spec.Owner}
    return spec.Failure(
        owner=owners.get(
            message.owner, spec.Owner.SYSTEM
        ),  # a later version's word: ours to act on
        kind=message.kind,
        message=message.message,
        node=message.node,
        traceback=message.traceback,
    )


def assignment_to_wire(value: spec.Assignment) -> placement_pb2.Assignment:
    return placement_pb2.Assignment(
        execution=value.execution,
        epoch=value.epoch,
        cluster=value.cluster,
        want=_WANTS[value.want],
        gate=value.gate,
        traceparent=value.traceparent,
    )


def assignment_from_wire(message: placement_pb2.Assignment) -> spec.Assignment:
    wants = {number: want for want, number in _WANTS.items()}
    if message.want not in wants:
        raise InvalidInput(f"an assignment of {message.execution} wants {message.want}: unknown")
    return spec.Assignment(
        execution=message.execution,
        epoch=message.epoch,
        cluster=message.cluster,
        want=wants[message.want],
        gate=message.gate,
        traceparent=message.traceparent,
    )


def phase_to_wire(value: spec.Phase) -> execution_pb2.Phase.ValueType:
    return execution_pb2.Phase.Value(value.value)


def phase_from_wire(number: execution_pb2.Phase.ValueType) -> spec.Phase:
    return spec.Phase(execution_pb2.Phase.Name(number))
