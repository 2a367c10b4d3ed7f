"""Spans of the control plane's own steps, one a message and execution, under the run's root span.

Called by launch, dispatch, claim and commit after their transaction; without a tracer set up by `__main__.py` nothing
is recorded.
"""

import time

from opentelemetry import trace

from whimbrel.service.telemetry import parent_from

TRACER = trace.get_tracer("control_plane")


def record(
    name: str, traceparent: str, *, started_ns: int, attributes: dict[str, str | int]
) -> None:
    """A step that began at `started_ns` (Unix) and ends now."""
    if not traceparent:
        return
    span = TRACER.start_span(
        name, context=parent_from(traceparent), start_time=started_ns, attributes=attributes
    )
    span.end(time.time_ns())
