"""Spans of a run, made when they are over: a node's and a task's ids are chosen at the start, so
that children can name them.

Called by `run.py` for each node and task; hands finished spans to the tracer's own processor, so
that nothing is kept open while a task runs.
"""

import random
import time
from collections.abc import Mapping
from typing import Any

from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, Tracer
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from data_plane_agent.launcher import Broke, Finished
from data_plane_agent.work import Trial


class Spans:
    """`ratio` of the nodes that get spans, of a run that is traced; 0 makes none."""

    def __init__(self, tracer: trace.Tracer | None = None, *, ratio: float = 1.0) -> None:
        self._tracer = tracer if isinstance(tracer, Tracer) else None
        self._ratio = ratio if self._tracer is not None else 0.0

    def child(self, parent: str) -> str:
        """A traceparent below `parent`; not sampled when `parent` is not, or by the ratio. ""
        below ""."""
        if len(parent) != 55:
            return ""
        sampled = parent[-1] in "13579bdf" and (self._ratio >= 1 or random.random() < self._ratio)
        return f"{parent[:36]}{random.getrandbits(64) or 1:016x}-{'01' if sampled else '00'}"

    def same(self, parent: str) -> str:
        """A traceparent below `parent` that is sampled exactly when `parent` is."""
        if len(parent) != 55:
            return ""
        return f"{parent[:36]}{random.getrandbits(64) or 1:016x}{parent[52:]}"

    def attempt_over(
        self, trial: Trial, event: Finished | Broke, *, parent: str, error: str
    ) -> None:
        """The task's, and its node's around it, below `parent`."""
        if not trial.trace.endswith("01"):
            return
        key = trial.key
        facts = {
            "whimbrel.execution": key.execution,
            "whimbrel.node": key.node,
            "whimbrel.attempt": key.attempt,
            "whimbrel.epoch": key.epoch,
        }
        self.emit(
            "task",
            at=trial.task_trace,
            parent=trial.trace,
            start_ns=event.started_ns,
            end_ns=event.ended_ns,
            attributes=facts,
            error=error,
        )
        self.emit(
            "node",
            at=trial.trace,
            parent=parent,
            start_ns=trial.begun_ns,
            end_ns=max(time.time_ns(), event.ended_ns),
            attributes=facts,
            error=error,
        )

    def emit(
        self,
        name: str,
        *,
        at: str,
        parent: str,
        start_ns: int,
        end_ns: int,
        attributes: Mapping[str, Any],
        error: str = "",
    ) -> None:
        """The span whose id `at` holds is over."""
        tracer = self._tracer
        if tracer is None or not at.endswith("01"):
            return
        above = _context(parent)
        span = ReadableSpan(
            name=name,
            context=_context(at),
            parent=above,
            resource=tracer.resource,
            attributes=attributes,
            kind=SpanKind.INTERNAL,
            status=Status(StatusCode.ERROR, error) if error else _UNSET,
            start_time=start_ns,
            end_time=end_ns,
        )
        tracer.span_processor.on_end(span)


_UNSET = Status(StatusCode.UNSET)


def _context(traceparent: str) -> SpanContext | None:
    if len(traceparent) != 55:
        return None
    return SpanContext(
        trace_id=int(traceparent[3:35], 16),
        span_id=int(traceparent[36:52], 16),
        is_remote=False,
        trace_flags=TraceFlags(int(traceparent[53:], 16)),
    )
