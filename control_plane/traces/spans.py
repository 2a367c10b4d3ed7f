"""Spans of the control plane's own steps, one a message and execution, under the run's root span.

Called by launch, dispatch, claim and commit after their transaction; with the default tracer
nothing is recorded.
"""

import time
from collections.abc import Mapping

from opentelemetry import trace
from whimbrel.service.telemetry import parent_from, traceparent_of


class Spans:
    def __init__(self, tracer: trace.Tracer | None = None) -> None:
        self._tracer = tracer or trace.NoOpTracer()

    def root(self, parent: str, attributes: Mapping[str, str | int]) -> str:
        """The span a run begins with, ended at once: the run outlives any process. Its context."""
        span = self._tracer.start_span(
            "execution", context=parent_from(parent), attributes=dict(attributes)
        )
        span.end()
        return traceparent_of(span)

    def record(
        self,
        name: str,
        traceparent: str,
        *,
        started_ns: int,
        attributes: Mapping[str, str | int],
    ) -> None:
        """A step that began at `started_ns` (Unix) and ends now."""
        if not traceparent:
            return
        span = self._tracer.start_span(
            name,
            context=parent_from(traceparent),
            start_time=started_ns,
            attributes=dict(attributes),
        )
        span.end(time.time_ns())
