"""CPU, memory and ports of the processes under measurement, from /proc through psutil.

CPU counts a process, all it started, and what it waited for; the kernel's clock ticks are 10 ms,
so only differences over many tasks mean something.
"""

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil


def tree(roots: Iterable[int]) -> list[psutil.Process]:
    found: dict[int, psutil.Process] = {}
    for pid in roots:
        with contextlib.suppress(psutil.NoSuchProcess):
            root = psutil.Process(pid)
            found[pid] = root
            found |= {child.pid: child for child in root.children(recursive=True)}
    return list(found.values())


def cpu_seconds(roots: Iterable[int]) -> float:
    total = 0.0
    for process in tree(roots):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total


def memory_bytes(roots: Iterable[int]) -> int:
    """Proportional set size: memory that forked workers share counts once."""
    total = 0
    for process in tree(roots):
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            total += process.memory_full_info().pss
    return total


@dataclass(slots=True)
class Usage:
    seconds: float = 0
    cpu: float = 0


@contextlib.contextmanager
def used(roots: Iterable[int]) -> Iterator[Usage]:
    """Wall and CPU seconds of the block, filled in at its end."""
    roots, usage = tuple(roots), Usage()
    before, start = cpu_seconds(roots), time.perf_counter()
    yield usage
    usage.seconds = time.perf_counter() - start
    usage.cpu = cpu_seconds(roots) - before


def calibration_ms() -> float:
    """A fixed loop. Two runs compare only if this agrees; more than usual = a busy machine."""
    start = time.perf_counter()
    total = 0
    for index in range(1_000_000):
        total += index & 7
    return (time.perf_counter() - start) * 1000


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for item in sockets:
            item.bind(("127.0.0.1", 0))
        return [item.getsockname()[1] for item in sockets]
    finally:
        for item in sockets:
            item.close()


@contextlib.contextmanager
def running(*command: str, log: Path, environment: dict[str, str] | None = None) -> Iterator[int]:
    """A server for the time of the block, in a session of its own; its pid."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            env={**os.environ, **(environment or {})}, start_new_session=True, cwd=log.parent,
        )  # fmt: skip
    try:
        yield process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def await_port(port: int, *, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            if time.monotonic() > end:
                raise TimeoutError(f"nothing listens on port {port}") from None
            time.sleep(0.02)
