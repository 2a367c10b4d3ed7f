"""How process 1 of a warm pod holds its child: forked, spoken to, heard, killed with its offspring.

Owned by `runtime_warm.py`; the child's side is `runtime_warm_child.py`. A fork has every module
that has proved to be importable, so that the next child is there in milliseconds.
"""

import importlib
import os
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress

from whimbrel import runtime_warm_child
from whimbrel.runtime_frames import Decoder, Message, encode
from whimbrel.runtime_warm_child import Room


class Child:
    def __init__(self, room: Room, *, moving: Callable[[], bool]) -> None:
        self._room = room
        self._moving = moving
        self._proved: set[str] = set()
        self._pid = 0
        self._channel: socket.socket | None = None
        self._decoder = Decoder()

    @property
    def channel(self) -> socket.socket | None:
        return self._channel

    def proved(self, module: str) -> None:
        """A child has imported it. The first import is never process 1's own: code that breaks
        there breaks a task, not the pod."""
        self._proved.add(module)

    def fork(self) -> None:
        """Returns in process 1 only."""
        for module in self._proved - sys.modules.keys():
            if str(self._room.desk.bundle) not in sys.path:
                sys.path.insert(0, str(self._room.desk.bundle))
                sys.dont_write_bytecode = True
            with suppress(BaseException):  # the child tries it too, and tells what is wrong
                importlib.import_module(module)
        sys.stdout.flush()
        sys.stderr.flush()
        ours, theirs = socket.socketpair()
        self._pid = os.fork()
        if not self._pid:
            ours.close()
            runtime_warm_child.serve(self._room, theirs, moving=self._moving)
        theirs.close()
        self._channel, self._decoder = ours, Decoder()

    def tell(self, message: Message) -> None:
        if self._channel is not None:
            with suppress(OSError):  # its end is seen by `ended`
                self._channel.sendall(encode(message))

    def hear(self) -> list[Message]:
        if self._channel is None:
            return []
        try:
            data = self._channel.recv(262144)
        except OSError:
            data = b""
        if not data:  # ended, or user code closed what it did not open
            self._channel.close()
            self._channel = None
        return list(self._decoder.feed(data))

    def ended(self) -> int | None:
        """Its status (as of os.waitstatus_to_exitcode) if it has ended by itself. As process 1 this
        buries also what others left behind."""
        found = None
        with suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if not pid:
                    break
                if pid == self._pid:
                    found = os.waitstatus_to_exitcode(status)
        return found

    def kill(self) -> None:
        if self._pid:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._pid, signal.SIGKILL)
            with suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
            with suppress(ChildProcessError):
                os.waitpid(self._pid, 0)
        if os.getpid() == 1:
            with suppress(ProcessLookupError):  # what left its session
                os.kill(-1, signal.SIGKILL)
        if self._channel is not None:
            self._channel.close()
        self._pid, self._channel = 0, None
