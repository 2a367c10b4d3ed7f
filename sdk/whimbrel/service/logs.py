"""Structured logs of a server on stderr: one JSON object a line, or text for a person.

Called once by each `__main__`; from then on the standard `logging` is used, and `extra={...}`
becomes fields.
"""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Literal

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def _fields(record: logging.LogRecord) -> dict[str, object]:
    return {key: value for key, value in vars(record).items() if key not in _STANDARD}


class JsonFormatter(logging.Formatter):
    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "service": self._service,
            "logger": record.name,
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


class TextFormatter(logging.Formatter):
    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        fields = " ".join(f"{key}={value}" for key, value in _fields(record).items())
        line, newline, rest = super().format(record).partition("\n")
        return (f"{line} [{fields}]" if fields else line) + newline + rest


def setup_logging(
    service: str, level: str = "info", format: Literal["json", "text"] = "json"
) -> None:
    """Replaces the root logger's handlers. `level` is a name of `logging`, in any case."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(service) if format == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # These say at every lost connection what the code that uses them says already, with more
    # meaning.
    for noisy in (
        "grpc._cython.cygrpc",
        "opentelemetry.exporter",
        "opentelemetry.sdk.trace.export",
    ):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)
