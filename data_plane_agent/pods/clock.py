"""Time, as what drives pods takes it: a parameter, so that tests do not wait.

Made by `launcher.py`, handed to the parts it is made of.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from whimbrel.runtime_timer import boottime_ns


@dataclass(frozen=True, slots=True)
class Clock:
    """`now` in seconds, only grows; `now_ns` is Unix time, `boottime_ns` that of deadlines."""

    now: Callable[[], float] = time.monotonic
    now_ns: Callable[[], int] = time.time_ns
    boottime_ns: Callable[[], int] = boottime_ns
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


REAL = Clock()
