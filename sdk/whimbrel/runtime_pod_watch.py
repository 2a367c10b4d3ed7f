"""How a pod's process 1 looks after its child: output, time limit, being asked to leave, the end.

Called by `runtime_pod.py`; answers how the child ended. Single-threaded, so that the fork is of one
thread; nothing that user code does (closing its output, daemons, forks) may keep it waiting.
"""

import errno
import os
import select
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from whimbrel.runtime_order import Pages
from whimbrel.runtime_timer import boottime_ns
from whimbrel.spec import Failure, Owner

LOG_LIMIT = 16 * 1024 * 1024
"""Bytes kept of an attempt's output; what is over that is cut off at the end."""
DRAIN_SECONDS = 2.0
"""For what is left in the pipe after the end: a daemon that got away may write for ever."""
_TICK_SECONDS = 1.0
_RENEW_SECONDS = 30.0
_OWN_SIGNALS = {
    signal.SIGABRT,
    signal.SIGBUS,
    signal.SIGFPE,
    signal.SIGILL,
    signal.SIGSEGV,
    signal.SIGSYS,
    signal.SIGTRAP,
}
_OOM_FILES = ("/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control")


@dataclass(frozen=True, slots=True)
class End:
    """`status` as of os.waitstatus_to_exitcode; `failure` is why we ended it, None when it ended by
    itself; `oom`: the kernel killed something of this container for memory."""

    status: int
    failure: Failure | None
    oom: bool


class Child:
    """`timeout` and `grace` are seconds, 0 = none; `moving()` is True once the pod has to go.
    `granted()` is until when an exclusive child may run at most (CLOCK_BOOTTIME; 0 = not known at
    this moment): its own timer is faster, but goes with an exec."""

    def __init__(
        self,
        log: Path,
        *,
        timeout: float,
        grace: float,
        moving: Callable[[], bool],
        pages: Pages,
        granted: Callable[[], int] | None = None,
    ) -> None:
        self._log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._written = 0
        self._timeout = timeout
        self._grace = grace
        self._moving = moving
        self._pages = pages
        self._granted = granted
        self._until_ns = 0
        self._renew_at = 0.0
        self._ooms = oom_kills()
        self._pid = 0
        self._status: int | None = None
        self._pipe, self.output = os.pipe()
        self._wake, wake_end = os.pipe()
        os.set_blocking(self._wake, False)
        os.set_blocking(wake_end, False)
        os.set_blocking(self._pipe, False)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        signal.set_wakeup_fd(wake_end)

    def fork(self) -> int:
        """0 in the child."""
        self._pid = os.fork()
        if self._pid:
            os.close(self.output)
        return self._pid

    def watch(self) -> End:
        begun = time.monotonic()
        limit = begun + self._timeout if self._timeout else None
        leave: float | None = None
        doom: Failure | None = None
        while self._status is None:
            now = time.monotonic()
            if doom is None and leave is None and self._moving() and self._grace:
                # What is left after it is for the log and the answer.
                leave = now + max(self._grace - 5.0, self._grace / 2)
            if doom is None and limit is not None and now >= limit:
                doom = _timed_out(self._timeout)
                self._kill()
            elif doom is None and leave is not None and now >= leave:
                doom = _unmoved(self._grace)
                self._kill()
            left = self._left()
            if doom is None and left is not None and left <= 0:
                doom = not_renewed()
                self._kill()
            ends = [end - now for end in (limit, leave) if end is not None]
            ends += [] if left is None else [left]
            self._wait(max(0.0, min([_TICK_SECONDS, *(ends if doom is None else [])])))
            self._renew(now)
            self._reap()
        self._kill()
        self._drain()
        return End(self._status, doom, oom_kills() > self._ooms)

    def _left(self) -> float | None:
        """Seconds until an exclusive child must be over; None for others."""
        if self._granted is None:
            return None
        self._until_ns = self._granted() or self._until_ns
        return (self._until_ns - boottime_ns()) / 1e9

    def _wait(self, seconds: float) -> None:
        sources = [self._wake] if self._pipe < 0 else [self._wake, self._pipe]
        ready, _, _ = select.select(sources, [], [], seconds)
        if self._wake in ready:
            with suppress(BlockingIOError):
                os.read(self._wake, 4096)
        if self._pipe in ready:
            self._pump()

    def _pump(self) -> bool:
        """Whether there was something to copy."""
        try:
            data = os.read(self._pipe, 65536)
        except BlockingIOError:
            return False
        if not data:  # everybody closed it; that is no end
            os.close(self._pipe)
            self._pipe = -1
            return False
        room = LOG_LIMIT - self._written
        if room > 0:
            with suppress(OSError):  # a full disk: the container's stream still has it
                os.write(self._log, data[:room])
        self._written += len(data)
        while data:
            try:
                data = data[os.write(1, data) :]
            except OSError as error:
                if error.errno != errno.EAGAIN:
                    break
                select.select([], [1], [], _TICK_SECONDS)
        return True

    def _drain(self) -> None:
        until = time.monotonic() + DRAIN_SECONDS
        while self._pipe >= 0 and time.monotonic() < until and self._pump():
            pass

    def _reap(self) -> None:
        """As process 1 also what others left behind."""
        with suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if not pid:
                    return
                if pid == self._pid:
                    self._status = os.waitstatus_to_exitcode(status)

    def _kill(self) -> None:
        """The child with all that it started; as process 1 also what left its session."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._pid, signal.SIGKILL)
        if self._status is None:
            with suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
        if os.getpid() == 1:
            with suppress(ProcessLookupError):
                os.kill(-1, signal.SIGKILL)

    def _renew(self, now: float) -> None:
        """URLs are good for some hours: the next page is asked for before this one expires."""
        if now < self._renew_at:
            return
        self._renew_at = now + _RENEW_SECONDS
        with suppress(OSError):  # the next look tries again
            if self._pages.stale() and not self._pages.step():
                self._pages.ask()


def how_lost(end: End) -> Failure:
    """The end of a child that left no answer."""
    if end.status >= 0:
        message = f"exited with status {end.status} without a result"
        return Failure(Owner.USER, "exited", message)
    if -end.status in _OWN_SIGNALS:
        name = signal.Signals(-end.status).name
        return Failure(Owner.USER, "exited", f"ended by {name} without a result")
    message = f"its process was killed from outside (signal {-end.status})"
    return Failure(Owner.SYSTEM, "worker_lost", message)


def oom_kills() -> int:
    """How often the kernel killed for memory in this container so far, 0 where it does not tell."""
    for name in _OOM_FILES:
        with suppress(OSError, ValueError):
            for line in Path(name).read_text().splitlines():
                word, _, count = line.partition(" ")
                if word == "oom_kill":
                    return int(count)
    return 0


def not_renewed() -> Failure:
    said = "its session was not renewed in time: it was ended at its deadline"
    return Failure(Owner.SYSTEM, "no_renewal", said)


def _timed_out(seconds: float) -> Failure:
    return Failure(Owner.USER, "timeout", f"did not end within its timeout of {seconds:g} s")


def _unmoved(grace: float) -> Failure:
    message = f"asked to move; neither ended nor saved a checkpoint within its {grace:g} s"
    return Failure(Owner.SYSTEM, "interrupted", message)
