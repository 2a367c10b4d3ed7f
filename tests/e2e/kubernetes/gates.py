"""What tasks in pods report to, and wait at: a small HTTP server in the tests' own process.

Pods reach it over the bridge of the test clusters. A task that can't reach it (its node is cut
off) tries again for ever: its notes come when the link is back, so a zombie is seen as one.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True, slots=True)
class Note:
    """One line a task wrote: which try of which node it is, where, and what it said."""

    node: str
    attempt: int
    epoch: int
    region: str
    host: str
    text: str


@dataclass(slots=True)
class Gates:
    """`address` is what pods are given; runs are told apart by the first part of the path."""

    address: str
    notes: dict[str, list[Note]] = field(default_factory=dict)
    opened: set[str] = field(default_factory=set)

    def door(self, run: str) -> str:
        return f"http://{self.address}/{run}"

    def open(self, run: str) -> None:
        self.opened.add(run)

    def said(self, run: str, text: str) -> list[Note]:
        """Notes of a run that begin with `text`, oldest first."""
        return [note for note in self.notes.get(run, []) if note.text.startswith(text)]

    def await_said(self, run: str, text: str, *, count: int = 1, deadline: float = 120.0) -> Note:
        """The newest of at least `count` such notes."""
        end = time.monotonic() + deadline
        while len(found := self.said(run, text)) < count:
            assert time.monotonic() < end, (
                f"{run}: {text!r} was said {len(found)} times, not {count}: {self.notes.get(run)}"
            )
            time.sleep(0.05)
        return found[-1]


def _handler(gates: Gates) -> Callable[..., BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            run = self.path.strip("/")
            self.send_response(200 if run in gates.opened else 404)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def do_POST(self) -> None:
            size = int(self.headers.get("Content-Length", 0))
            node, attempt, epoch, region, host, text = self.rfile.read(size).decode().split("\n", 5)
            run = self.path.strip("/")
            gates.notes.setdefault(run, []).append(
                Note(node, int(attempt), int(epoch), region, host, text)
            )
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: a poll is no news."""

    return Handler


@contextmanager
def serve_gates(host: str) -> Iterator[Gates]:
    """`host` is an address of this machine that pods reach."""
    gates = Gates("")
    server = ThreadingHTTPServer((host, 0), _handler(gates))
    server.daemon_threads = True
    gates.address = f"{host}:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, name="gates", daemon=True)
    thread.start()
    try:
        yield gates
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
