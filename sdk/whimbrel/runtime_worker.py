"""One warm worker: takes tasks off the agent's socket, runs them one after another, answers with
what became of each.

Forked by `runtime.py`; calls the user's function through `runtime_task.py`. Outlives its agent: a
result nobody took is kept in the spool folder, and the worker connects again until `orphan_seconds`
have passed.
"""

import ctypes
import hashlib
import json
import os
import socket
import sys
import time
from collections import OrderedDict, deque
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path

from whimbrel import runtime_frames as frames
from whimbrel.runtime_frames import Message, StatePage
from whimbrel.runtime_store import AttemptStore
from whimbrel.spec import Artifact

LOG_LIMIT = 16 * 1024 * 1024
"""Bytes kept of one stream of one attempt; what is over that is cut off at the end."""
_TRIM_LOGS = 1024 * 1024
_LEAK_CHECK_TASKS = 64


@dataclass(frozen=True, slots=True)
class Seat:
    """What a family and its workers are told once. `orphan_seconds`: too short loses work when an
    agent restarts slowly, too long lets a lost agent's processes linger. A worker that grew by
    `leak_bytes` retires."""

    family: str
    socket: str
    data_dir: str
    bundle: str
    store: str
    region: str
    orphan_seconds: float
    leak_bytes: int


def spool_file(data_dir: Path, key: list[str | int]) -> Path:
    name = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:32]
    return data_dir / "spool" / f"{name}.json"


class Worker:
    """A single thread by design: user code may fork, and a fork of threads is a trap."""

    def __init__(self, seat: Seat, name: str) -> None:
        self.seat = seat
        self.name = name
        self._folder = Path(seat.data_dir, "workers")
        self._agent: socket.socket | None = None
        self._decoder = frames.Decoder()
        self._queue: deque[Message] = deque()
        self._unacked: OrderedDict[int, Message] = OrderedDict()
        self._store = AttemptStore(seat.store, seat.region)
        self._libc = ctypes.CDLL(None)
        self._tasks = 0
        self._enter()
        self._page = StatePage(self._folder / f"{name}.state", create=True)
        self._first_rss = _rss()
        self._pid = os.getpid()

    def run(self) -> int:
        """Until told to stop, or nobody came back, or too much memory stayed behind."""
        while self._agent or self._connect():
            if not self._queue:
                self._receive()
                continue
            frame = self._queue.popleft()
            match frame:
                case {"seq": int(seq)}:
                    self._serve(seq, frame)
                    if os.getpid() != self._pid:
                        os._exit(0)  # user code forked, and the copy came back too
                    if self._leaked():
                        return 0
                case {"ack": int(seq)}:
                    self._forget(seq)
                case {"stop": _}:
                    return 0
                case _:
                    pass
        return 0

    def save_checkpoint(self, key: list[str | int], artifact: Artifact) -> None:
        self._send({"t": "saved", "k": key, "artifact": _plain(artifact), "at": time.time_ns()})

    def _enter(self) -> None:
        """Own session (killed as one with its children), own standard streams, own random
        numbers."""
        os.setsid()
        for stream, number in (("out", 1), ("err", 2)):
            path = self._folder / f"{self.name}.{stream}"
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
            os.dup2(descriptor, number)
            os.close(descriptor)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
        for text in (sys.stdout, sys.stderr):
            assert isinstance(text, TextIOWrapper)
            text.reconfigure(line_buffering=True)
