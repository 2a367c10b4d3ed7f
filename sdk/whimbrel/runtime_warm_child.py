"""The child of a warm pod's process 1: runs tasks one after another, with what they imported kept.

Forked by `runtime_warm.py`, which gives it a task at a time over a socket pair and takes its
answer; calls `runtime_task.run_attempt`. When a task breaks it, another child is forked.
"""

import ctypes
import os
import shutil
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from typing import NoReturn

from whimbrel.runtime_frames import Decoder, Message, encode
from whimbrel.runtime_order import PAGE_SECONDS, Page, Pages, SignedStore, Slot
from whimbrel.runtime_pod_child import Desk, end_with_parent, go_first
from whimbrel.runtime_pod_http import Http
from whimbrel.runtime_store import plain
from whimbrel.spec import Artifact

_BUG = 70


@dataclass(frozen=True, slots=True)
class Room:
    """Where tasks live: `empty` are folders that are emptied between them, beside their own."""

    desk: Desk
    empty: tuple[Path, ...]
    region: str

    @property
    def work(self) -> Path:
        return self.desk.folder / "task"

    def clean(self) -> None:
        """Whatever the last task left, or where it went."""
        self.work.mkdir(exist_ok=True)
        for folder in (self.work, *self.empty):
            with suppress(OSError), os.scandir(folder) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        shutil.rmtree(entry.path, ignore_errors=True)
                    else:
                        os.unlink(entry.path)


class Channel:
    """One end of the socket pair. Sends may come from any thread of user code."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._decoder = Decoder()
        self._waiting: list[Message] = []
        self._lock = threading.Lock()

    def send(self, message: Message) -> None:
        with self._lock:
            self._end.sendall(encode(message))

    def receive(self, *, seconds: float | None = None) -> Message:
        """OSError when nothing came, or process 1 is gone."""
        self._end.settimeout(seconds)
        while not self._waiting:
            data = self._end.recv(262144)
            if not data:
                raise ConnectionError("process 1 is gone")
            self._waiting.extend(self._decoder.feed(data))
        return self._waiting.pop(0)


class DoorPages(Pages):
    """Slots to write come from the agent when they are first needed: most tasks need none."""

    def __init__(self, channel: Channel, frame: Message) -> None:
        none = Slot("", "")
        page = Page(0, (), (), none, none, "", "", frame["reads_until_ns"], frame["reads"])
        super().__init__(page, Http())
        self._channel = channel

    def turn(self) -> None:
        self._channel.send({"t": "more", "n": self.page.number + 1})
        fields = self._channel.receive(seconds=PAGE_SECONDS)["page"]
        try:
            self.page = Page.of(fields, now_ns=self._now_ns())
        except (KeyError, TypeError) as error:
            raise OSError(f"the agent's page can't be read: {error!r}") from error


def serve(room: Room, end: socket.socket, *, moving: Callable[[], bool]) -> NoReturn:
    """Until process 1 ends it."""
    pid = os.getpid()
    try:
        _enter(room, end.fileno())
        channel = Channel(end)
        streams = (sys.stdout, sys.stderr)
        flush = ctypes.CDLL(None).fflush
        while True:
            frame = channel.receive()
            _begin(room, streams)
            answer = _attempt(frame, room, channel, moving)
            if os.getpid() != pid:
                os._exit(0)  # user code forked, and the copy came back too: only one may answer
            for stream in {*streams, sys.stdout, sys.stderr}:
                with suppress(BaseException):  # user code may have closed or replaced them
                    stream.flush()
            flush(None)
            room.clean()
            channel.send(answer)
    except ConnectionError:
        os._exit(0)
    except BaseException:
        with suppress(BaseException):
            traceback.print_exc()
            sys.stderr.flush()
        os._exit(_BUG)


def _attempt(frame: Message, room: Room, channel: Channel, moving: Callable[[], bool]) -> Message:
    from whimbrel.runtime_task import run_attempt

    store = SignedStore(DoorPages(channel, frame), region=room.region, scratch=str(room.work))

    def saved(_key: list[str | int], artifact: Artifact) -> None:
        channel.send({"t": "saved", "artifact": plain(artifact)})

    bundle = str(room.desk.bundle)
    return run_attempt(frame, store, saved, seat_bundle=bundle, moving=moving)


def _begin(room: Room, streams: Sequence[object]) -> None:
    """A file of its own for the output: what an earlier task left running writes to its old one."""
    room.desk.log.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    output = os.open(room.desk.log, flags, 0o600)
    for number in (1, 2):
        os.dup2(output, number)
    if output > 2:
        os.close(output)
    sys.stdout, sys.stderr = streams
    os.chdir(room.work)


def _enter(room: Room, keep: int) -> None:
    os.setsid()
    end_with_parent()
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        os.dup2(nothing, number)
    for number in _others(keep):
        with suppress(OSError):
            os.close(number)
    for text in (sys.stdout, sys.stderr):
        if isinstance(text, TextIOWrapper):
            text.reconfigure(line_buffering=True)
    go_first()
    if not os.access(os.environ.get("HOME") or "/", os.W_OK):  # caches of libraries go there
        os.environ["HOME"] = str(room.desk.folder)
    if (bundle := str(room.desk.bundle)) not in sys.path:
        sys.path.insert(0, bundle)
    sys.dont_write_bytecode = True
    room.clean()


def _others(keep: int) -> Iterator[int]:
    """Descriptors of process 1: its door above all."""
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2 and int(name) != keep:
            yield int(name)
