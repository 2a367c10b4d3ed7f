"""The control plane's own spans straight into the store it keeps, without a detour over the
network.
"""

from collections.abc import Sequence

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import StatusCode, format_span_id, format_trace_id

from control_plane.traces.store import Span, Traces


class LocalExporter(SpanExporter):
    def __init__(self, traces: Traces) -> None:
        self._traces = traces

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self._traces.take([span_of(span) for span in spans if span.context])
        return SpanExportResult.SUCCESS


def span_of(span: ReadableSpan) -> Span:
    context = span.get_span_context()
    parent = span.parent
    return Span(
        trace_id=format_trace_id(context.trace_id) if context else "",
        span_id=format_span_id(context.span_id) if context else "",
        parent_id=format_span_id(parent.span_id) if parent else "",
        name=span.name,
        service=str(span.resource.attributes.get("service.name", "")),
        start_ns=span.start_time or 0,
        end_ns=span.end_time or 0,
        error=span.status.status_code is StatusCode.ERROR,
        attributes=tuple((key, str(value)) for key, value in (span.attributes or {}).items()),
        links=tuple(format_span_id(link.context.span_id) for link in span.links),
    )
