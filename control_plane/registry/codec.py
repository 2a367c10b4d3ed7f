"""Specifications between the wire's bytes, as the registry keeps them, and the shared values."""

from whimbrel import codec
from whimbrel.spec import WorkflowSpec
from whimbrel.wire.v1 import spec_pb2


def spec_to_bytes(spec: WorkflowSpec) -> bytes:
    return codec.workflow_to_wire(spec).SerializeToString(deterministic=True)


def spec_from_bytes(data: bytes) -> WorkflowSpec:
    return codec.workflow_from_wire(spec_pb2.WorkflowSpec.FromString(data))
