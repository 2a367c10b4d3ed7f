"""Inside the task's side of the process launcher: a family imports the user's code once and forks
workers from it.

Started by `data_plane_agent/processes/launcher.py` as `python -P -m whimbrel.runtime family
{JSON}`; tells it what was imported, which workers ended and how; hands each fork to
`runtime_worker.py`. No thread may exist here: forks copy only one.
"""

import contextlib
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from whimbrel import runtime_frames as frames
from whimbrel import runtime_worker
from whimbrel.runtime_failures import describe
from whimbrel.runtime_worker import Seat


class Family:
    """The parent process. Ends when it is told to, or when no agent came back for
    `orphan_seconds`."""

    def __init__(self, seat: Seat) -> None:
        self.seat = seat
        self.workers: dict[int, str] = {}
        self._modules: list[str] = []
        self._ends: list[frames.Message] = []
        self._agent: socket.socket | None = None
        self._decoder = frames.Decoder()
        self._wake, wake_end = os.pipe()
        os.set_blocking(self._wake, False)
        os.set_blocking(wake_end, False)
        self._wake_end = wake_end
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        signal.set_wakeup_fd(wake_end)

    def run(self) -> str:
        """Returns the name of the worker to be in a forked child, "" when the family's time is
        over."""
        while self._agent or self._connect():
            agent = self._agent
            if agent is None:
                continue
            if agent not in self._wait(agent):
                continue
            try:
                data = agent.recv(65536)
            except ConnectionError:
                data = b""
            if not data:
                self._agent = None
                agent.close()
            for message in self._decoder.feed(data):
                match message:
                    case {"import": str(module)}:
                        self._import(module)
                    case {"fork": str(worker)}:
                        if self._fork(worker):
                            return worker
                    case {"stop": _}:
                        return ""
                    case _:
                        pass
        return ""

    def _connect(self) -> bool:
        deadline = time.monotonic() + self.seat.orphan_seconds
        while time.monotonic() < deadline:
            self._agent = frames.connect(self.seat.socket)
            if self._agent is not None:
                self._decoder = frames.Decoder()
                self._send(
                    {
                        "t": "family",
                        "v": frames.PROTOCOL,
                        "id": self.seat.family,
                        "pid": os.getpid(),
                        "modules": self._modules,
                    }
                )
                self._tell_ends()
                return True
            self._wait(seconds=0.05)  # workers end while there is no agent, too
        return False

    def _wait(self, *sources: socket.socket, seconds: float | None = None) -> Sequence[object]:
        """Which of these have something to read, meanwhile burying workers."""
        ready, _, _ = select.select([*sources, self._wake], [], [], seconds)
        if self._wake in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(self._wake, 4096)
            self._reap()
        return ready

    def _send(self, message: frames.Message) -> bool:
        """False: there is no agent that could hear it."""
        try:
            if self._agent is not None:
                self._agent.sendall(frames.encode(message))
        except OSError:
            self._agent = None
        return self._agent is not None

    def _import(self, module: str) -> None:
        try:
            importlib.import_module(module)
        except (
            BaseException
        ) as error:  # whatever user code does at import is reported, SystemExit too
            failure = describe(error, inside=self.seat.bundle)
            message = f"importing {module} failed: {failure.message}"
            self._send(
                {"t": "broken", "module": module, "message": message, "tb": failure.traceback}
            )
            return
        self._modules.append(module)
        gc.collect()
        gc.freeze()  # pages of what is imported stay shared with the workers
        self._send({"t": "imported", "module": module})

    def _fork(self, worker: str) -> bool:
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid:
            self.workers[pid] = worker
            return False
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.close(self._wake)
        os.close(self._wake_end)
        if self._agent is not None:
            self._agent.close()
        return True

    def _reap(self) -> None:
        """What a worker started goes with it, before its end is told; no agent has to live."""
        for pid, worker in list(self.workers.items()):
            if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                continue
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)  # while its zombie keeps the number from others
            del self.workers[pid]
            _, status = os.waitpid(pid, 0)
            code = os.waitstatus_to_exitcode(status)
            self._ends.append({"t": "exited", "name": worker, "pid": pid, "status": code})
        if self.seat.exclusive:
            self._end_strangers()
        self._tell_ends()

    def _tell_ends(self) -> None:
        """Those of a time without an agent are told to the next one, which waits for them."""
        while self._ends and self._send(self._ends[0]):
            del self._ends[0]

    def _end_strangers(self) -> None:
        """Children in a session that is not ours and no worker: a dead worker left them (a living
        one keeps its own). Those that they leave behind come next."""
        while strangers := [pid for pid in _children() if self._strange(pid)]:
            for pid in strangers:
                os.kill(pid, signal.SIGKILL)
            for pid in strangers:
                os.waitpid(pid, 0)

    def _strange(self, pid: int) -> bool:
        return pid not in self.workers and os.getsid(pid) != os.getsid(0)


def _children() -> list[int]:
    """Of this process, which has one thread; the dead that nobody has waited for too."""
    return [int(pid) for pid in Path("/proc/thread-self/children").read_text().split()]


def main(arguments: Sequence[str]) -> int:
    match arguments:
        case ["family", text]:
            seat = Seat(**json.loads(text))
        case _:
            print("usage: python -m whimbrel.runtime family JSON", file=sys.stderr)  # noqa: T201
            return 2
    if seat.exclusive:
        runtime_worker.keep_orphans()
    os.chdir(Path(seat.data_dir, "work"))
    sys.path.insert(0, seat.bundle)
    sys.dont_write_bytecode = True
    worker = Family(seat).run()
    return runtime_worker.Worker(seat, worker).run() if worker else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
