"""OTLP messages as the spans of `store.py`."""

from collections.abc import Iterable, Iterator
from typing import Any

from control_plane.traces.store import Span


def spans_from_otlp(request: Any) -> Iterator[Span]:
    """`request` is an ExportTraceServiceRequest; its generated classes carry no types."""
    for resource in request.resource_spans:
        service = dict(texts(resource.resource.attributes)).get("service.name", "")
        region = dict(texts(resource.resource.attributes)).get("whimbrel.region", "")
        for scope in resource.scope_spans:
            for span in scope.spans:
                extra = [("whimbrel.region", region)] if region else []
                yield Span(
                    trace_id=span.trace_id.hex(),
                    span_id=span.span_id.hex(),
                    parent_id=span.parent_span_id.hex(),
                    name=span.name,
                    service=service,
                    start_ns=span.start_time_unix_nano,
                    end_ns=span.end_time_unix_nano,
                    error=span.status.code == 2,
                    attributes=(*texts(span.attributes), *extra),
                    links=tuple(link.span_id.hex() for link in span.links),
                )


def texts(attributes: Iterable[Any]) -> list[tuple[str, str]]:
    return [(item.key, text(item.value)) for item in attributes]


def text(value: Any) -> str:
    kind = value.WhichOneof("value")
    return "" if kind is None else str(getattr(value, kind))
