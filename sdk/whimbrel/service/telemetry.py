"""OpenTelemetry of a server: a tracer that exports in batches, and W3C trace contexts as text.

Called by each `__main__`; spans are made per message, never per stream. Nothing waits for a
collector.
"""

from opentelemetry import context, trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

_PROPAGATOR = TraceContextTextMapPropagator()
EXPORT_TIMEOUT_SECONDS = 3
"""Of one export. Too short drops spans at a slow collector, too long delays a server's stop when
there is none."""


def setup_tracing(
    service: str,
    *,
    endpoint: str = "",
    region: str = "",
    exporter: SpanExporter | None = None,
    schedule_ms: int = 200,
) -> trace.Tracer:
    """A tracer whose spans go to `endpoint` (host:port, OTLP over gRPC); "" makes spans that go
    nowhere, so that
    trace contexts still travel. `exporter` replaces the OTLP one: a server that keeps traces
    itself needs no detour.
    """
    attributes = {"service.name": service} | ({"whimbrel.region": region} if region else {})
    provider = TracerProvider(resource=Resource.create(attributes), shutdown_on_exit=False)
    if exporter is None and endpoint:
        exporter = OTLPSpanExporter(
            endpoint=endpoint, insecure=True, timeout=EXPORT_TIMEOUT_SECONDS
        )
    if exporter is not None:
        provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=schedule_ms))
    _PROVIDERS.append(provider)
    return provider.get_tracer("whimbrel")


_PROVIDERS: list[TracerProvider] = []


def stop_tracing() -> None:
    """Sends what is left and ends the export threads; the last thing a server does."""
    while _PROVIDERS:
        _PROVIDERS.pop().shutdown()


def parent_from(traceparent: str) -> context.Context:
    """The context to start a span in; an empty or unreadable text begins a new trace."""
    return _PROPAGATOR.extract({"traceparent": traceparent}, context=context.Context())


def traceparent_of(span: trace.Span) -> str:
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier, context=trace.set_span_in_context(span, context.Context()))
    return carrier.get("traceparent", "")
