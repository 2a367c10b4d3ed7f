"""One warm worker: takes tasks off the agent's socket and answers with what became of each.

Forked by `runtime.py`; calls the user's function through `runtime_task.py`. Outlives its agent: a
result nobody took is kept in the spool folder, and the worker connects again for a while. It runs
one exclusive attempt only, and that one's answer is always a file: its end shows by the worker's.
"""

import ctypes
import hashlib
import json
import os
import random
import shutil
import signal
import socket
import sys
import time
from collections import OrderedDict, deque
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from io import TextIOWrapper
from pathlib import Path

from whimbrel import runtime_frames as frames
from whimbrel.runtime_exclusive import hold
from whimbrel.runtime_frames import Message, Now, StatePage
from whimbrel.runtime_store import AttemptStore, StoreFull, plain
from whimbrel.runtime_task import broken, run_attempt
from whimbrel.spec import Artifact, Failure, Owner

LOG_LIMIT = 16 * 1024 * 1024
"""Bytes kept of one stream of one attempt; what is over that is cut off at the end."""
_TRIM_LOGS = 1024 * 1024
_LEAK_CHECK_TASKS = 64
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


@dataclass(frozen=True, slots=True)
class Seat:
    """What a family and its workers are told once.

    `orphan_seconds`: too short loses work when an agent restarts slowly, too long lets a lost
    agent's processes linger. A worker that has grown by `leak_bytes` retires. An `exclusive` family
    runs nothing else, leaves nothing of a worker behind, and takes its workers with it. `mark` is
    in the environment of all that descends from the family.
    """

    family: str
    socket: str
    data_dir: str
    bundle: str
    store: str
    region: str
    orphan_seconds: float
    leak_bytes: int
    exclusive: bool = False
    mark: str = ""


def keep_orphans() -> None:
    """Whatever its descendants leave behind becomes a child of this process, `setsid` or not."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_with(parent: int) -> None:
    """The kernel ends this process with that one, its parent: nobody else could tell what the task
    leaves behind."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


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
        self._scratch = Path(seat.data_dir, "work", name)
        self._store = AttemptStore(seat.store, seat.region, scratch=str(self._scratch))
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
        saved = {"t": "saved", "k": key, "artifact": plain(artifact), "at": time.time_ns()}
        if not self._send(saved) and self._hello():  # another agent may have taken over meanwhile
            self._send(saved)

    def _enter(self) -> None:
        """Own session (killed as one with its children), own streams, own random numbers."""
        parent = os.getppid()
        os.setsid()
        if self.seat.exclusive:
            end_with(parent)
            keep_orphans()
        self._clean()
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
        signal.signal(signal.SIGINT, signal.default_int_handler)
        random.seed()
        if numpy := sys.modules.get("numpy.random"):
            numpy.seed()
        with suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text(
                "500"
            )  # the kernel takes a task before the agent
        about = {
            "pid": os.getpid(),
            "start": frames.start_time(os.getpid()),
            "family": self.seat.family,
            "exclusive": self.seat.exclusive,
            "parent": [parent, frames.start_time(parent)],
            "mark": self.seat.mark,
        }
        _write_synced(self._folder / f"{self.name}.json", about)

    def _connect(self) -> bool:
        deadline = time.monotonic() + self.seat.orphan_seconds
        while time.monotonic() < deadline:
            if self._hello():
                return True
            time.sleep(0.05)
        return False

    def _hello(self) -> bool:
        self._agent = frames.connect(self.seat.socket)
        if self._agent is None:
            return False
        self._decoder = frames.Decoder()
        results = list(self._unacked.values())
        self._send({"t": "hello", "v": frames.PROTOCOL, "name": self.name, "results": results})
        return True

    def _receive(self) -> None:
        if self._agent is None:
            return
        try:
            data = self._agent.recv(262144)
        except OSError:
            data = b""
        if data:
            self._queue.extend(self._decoder.feed(data))
        else:
            self._lost()

    def _send(self, message: Message) -> bool:
        if self._agent is None:
            return False
        try:
            self._agent.sendall(frames.encode(message))
        except OSError:
            self._lost()
            return False
        return True

    def _lost(self) -> None:
        """The agent is gone: what it may not have taken goes to disk, its queue is dropped."""
        if self._agent is not None:
            self._agent.close()
        self._agent = None
        self._queue.clear()
        for result in self._unacked.values():
            _write_synced(spool_file(Path(self.seat.data_dir), result["k"]), result)

    def _forget(self, seq: int) -> None:
        while self._unacked and next(iter(self._unacked)) <= seq:
            self._unacked.popitem(last=False)

    def _serve(self, seq: int, frame: Message) -> None:
        out_at, err_at = (self._log_start(number) for number in (1, 2))
        now = Now(seq, True, time.time_ns(), out_at, err_at)
        if not self._page.begin(now, json.dumps(frame["meta"]).encode()):
            self._send({"t": "dropped", "seq": seq})
            return
        self._store.prefix = "/".join(str(part) for part in frame["meta"]["k"])
        answer = self._attempt(seq, frame)
        if os.getpid() != self._pid:
            os._exit(0)  # user code forked, and the copy came back too: only one may answer
        answer |= {
            "seq": seq,
            "k": frame["meta"]["k"],
            "d": frame["meta"]["d"],
            "s": now.started_ns,
            "e": time.time_ns(),
        }
        self._clean()
        self._libc.fflush(None)  # what C code printed belongs to this task, not to the next
        for name, number, start in (("stdout", 1, out_at), ("stderr", 2, err_at)):
            answer[name] = self._stored_log(name, number, start)
        if frame["meta"]["exclusive"]:
            # Told by this process's end: threads and children of user code may still run until
            # then. The timer stays armed, and the page says "running", until there is nothing left.
            _write_synced(spool_file(Path(self.seat.data_dir), answer["k"]), answer)
            os._exit(0)
        self._unacked[seq] = answer
        if self._agent is None:
            _write_synced(spool_file(Path(self.seat.data_dir), answer["k"]), answer)
        self._send(answer)
        self._page.end(now)

    def _attempt(self, seq: int, frame: Message) -> Message:
        if frame["meta"]["exclusive"] and (why := hold(partial(self._page.granted, seq))):
            return broken(Failure(Owner.SYSTEM, "no_renewal", f"not started: {why}"))
        return run_attempt(
            frame,
            self._store,
            self.save_checkpoint,
            seat_bundle=self.seat.bundle,
            moving=partial(self._page.quiesced, seq),
        )

    def _clean(self) -> None:
        """An empty working folder for the next task, whatever this one left or where it went."""
        if self._scratch.exists() and any(self._scratch.iterdir()):
            shutil.rmtree(self._scratch, ignore_errors=True)
        self._scratch.mkdir(exist_ok=True)
        os.chdir(self._scratch)

    def _log_start(self, number: int) -> int:
        size = os.fstat(number).st_size
        if size > _TRIM_LOGS:
            os.ftruncate(number, 0)
            return 0
        return size

    def _stored_log(self, name: str, number: int, start: int) -> Message | None:
        (sys.stdout if number == 1 else sys.stderr).flush()
        size = os.fstat(number).st_size - start
        if size <= 0:
            return None
        data = os.pread(number, min(size, LOG_LIMIT), start)
        with suppress(StoreFull):  # a result is worth more than its log
            return plain(self._store.put_bytes(data, name=name, kind="file"))
        return None

    def _leaked(self) -> bool:
        self._tasks += 1
        if self._tasks % _LEAK_CHECK_TASKS or _rss() - self._first_rss < self.seat.leak_bytes:
            return False
        self._send({"t": "retire"})
        return True


def _rss() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _write_synced(path: Path, value: Message) -> None:
    fresh = path.with_suffix(".new")
    with fresh.open("w") as file:
        json.dump(value, file)
        file.flush()
        os.fsync(file.fileno())
    fresh.rename(path)
