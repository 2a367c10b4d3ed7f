"""Log lines carry their fields, traces their parents, probes their answers, crash points their
process."""

import json
import logging
import subprocess
import sys
from pathlib import Path

from opentelemetry import trace
from whimbrel.service import http
from whimbrel.service.crash import crash_point
from whimbrel.service.logs import JsonFormatter
from whimbrel.service.telemetry import parent_from, setup_tracing, traceparent_of


def test_extra_becomes_fields_of_the_line() -> None:
    record = logging.makeLogRecord({"msg": "moved", "levelname": "INFO", "epoch": 3})
    line = json.loads(JsonFormatter("router").format(record))
    assert (line["service"], line["message"], line["epoch"]) == ("router", "moved", 3)


def test_a_span_continues_the_trace_it_was_given() -> None:
    tracer = setup_tracing("test")
    root = tracer.start_span("root")
    child = tracer.start_span("child", context=parent_from(traceparent_of(root)))
    assert child.get_span_context().trace_id == root.get_span_context().trace_id
    assert child.get_span_context().span_id != root.get_span_context().span_id


def test_an_unreadable_trace_context_begins_a_new_trace() -> None:
    assert not trace.get_current_span(parent_from("nonsense")).get_span_context().is_valid


def test_probes() -> None:
    assert http.answer("/healthz", ready=False)[0] == 200
    assert http.answer("/readyz", ready=False)[0] == 503
    assert http.answer("/readyz", ready=True)[0] == 200
    assert b"python_info" in http.answer("/metrics?x=1", ready=True)[2]
    assert http.answer("/", ready=True)[0] == 404


def test_a_crash_point_without_the_variable_does_nothing() -> None:
    crash_point("here")


def test_a_crash_point_kills_once(tmp_path: Path) -> None:
    program = "from whimbrel.service.crash import crash_point; crash_point('here'); print('alive')"
    environment = {"WHIMBREL_CRASH_AT": "here", "WHIMBREL_CRASH_ONCE": str(tmp_path / "once")}
    runs = [
        subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True)
        for _ in range(2)
    ]
    assert [run.returncode for run in runs] == [-9, 0]
