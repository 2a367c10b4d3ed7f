"""A kernel timer that ends this process at an absolute time, whatever happens to whoever looks
after it.

Armed by who runs an exclusive attempt (`runtime_exclusive.py`, in the worker itself) before user
code; asks nobody. After SIGSTOP, a frozen container or a suspended machine the kernel delivers
SIGKILL before one more instruction of the process runs: a watchdog thread or a parent is later.

It belongs to one process: a fork has none and an exec deletes it. What the task itself started
(subprocesses, `multiprocessing`) is ended by the family when the worker dies, which may be some
milliseconds later when both were paused.
"""

import ctypes
import os
import signal
import time

_CLOCK_BOOTTIME = time.CLOCK_BOOTTIME
_SIGEV_SIGNAL = 0
_TIMER_ABSTIME = 1
_SECOND = 1_000_000_000


class _Event(ctypes.Structure):
    """`struct sigevent`: 64 bytes on Linux."""

    _fields_ = (
        ("value", ctypes.c_void_p),
        ("signal", ctypes.c_int),
        ("notify", ctypes.c_int),
        ("rest", ctypes.c_char * 48),
    )


class _When(ctypes.Structure):
    """`struct itimerspec`: every interval, then the first time."""

    _fields_ = (
        ("every_seconds", ctypes.c_long),
        ("every_ns", ctypes.c_long),
        ("at_seconds", ctypes.c_long),
        ("at_ns", ctypes.c_long),
    )


def boottime_ns() -> int:
    """The clock of deadlines: it goes on while the machine is suspended."""
    return time.clock_gettime_ns(_CLOCK_BOOTTIME)


class KillTimer:
    """`until_ns` are CLOCK_BOOTTIME. OSError when the kernel gives no timer: then nothing may run
    that needs one."""

    def __init__(self) -> None:
        self._libc = _library()
        self._timer = ctypes.c_void_p()
        self.until_ns = 0
        event = _Event(signal=signal.SIGKILL, notify=_SIGEV_SIGNAL)
        made = self._libc.timer_create(
            ctypes.c_int(_CLOCK_BOOTTIME), ctypes.byref(event), ctypes.byref(self._timer)
        )
        _check(made, "timer_create")

    def arm(self, until_ns: int) -> None:
        """A time that has passed ends the process now."""
        if until_ns <= 0:
            raise ValueError(f"a deadline is a time on CLOCK_BOOTTIME, not {until_ns}")
        self._set(until_ns)

    def push(self, until_ns: int) -> None:
        """Only ever later; an earlier time is ignored."""
        if self.until_ns and until_ns > self.until_ns:
            self._set(until_ns)

    def disarm(self) -> None:
        self._set(0)

    def _set(self, until_ns: int) -> None:
        when = _When(at_seconds=until_ns // _SECOND, at_ns=until_ns % _SECOND)
        done = self._libc.timer_settime(
            self._timer, ctypes.c_int(_TIMER_ABSTIME), ctypes.byref(when), None
        )
        _check(done, "timer_settime")
        self.until_ns = until_ns


def _library() -> ctypes.CDLL:
    """glibc before 2.34 keeps timers in a library of their own."""
    libc = ctypes.CDLL(None, use_errno=True)
    return libc if hasattr(libc, "timer_create") else ctypes.CDLL("librt.so.1", use_errno=True)


def _check(status: int, what: str) -> None:
    if status != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
