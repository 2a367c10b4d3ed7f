"""OTLP `TraceService` on the control plane's own port, when it keeps traces."""

from typing import Any

from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from control_plane.traces.codec import spans_from_otlp
from control_plane.traces.store import Traces

PB2: Any = trace_service_pb2
GRPC: Any = trace_service_pb2_grpc


class Collector(GRPC.TraceServiceServicer):
    def __init__(self, traces: Traces) -> None:
        self._traces = traces

    async def Export(self, request: Any, context: Any) -> Any:
        self._traces.take(list(spans_from_otlp(request)))
        return PB2.ExportTraceServiceResponse()


def add_collector(traces: Traces, server: Any) -> None:
    GRPC.add_TraceServiceServicer_to_server(Collector(traces), server)
