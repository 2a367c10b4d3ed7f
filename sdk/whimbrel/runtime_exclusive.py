"""What an exclusive attempt has to have before user code: a live deadline and a timer that keeps
it.

Called by who runs the attempt, in its own process, with a way to ask for the newest deadline; arms
`runtime_timer.py` and pushes it out as renewals come.

Pushing is a thread's work. It can't lengthen anything by being late, only shorten: C code that
holds the interpreter for longer than a deadline is away ends with the task. User code that forks
gets a copy without this thread and without the timer (Python 3.12 warns of a fork beside threads);
who looks after the process ends such copies when it dies.
"""

import threading
import time
from collections.abc import Callable

from whimbrel.runtime_timer import KillTimer, boottime_ns

WAIT_SECONDS = 2.0
"""For a live deadline. Too short refuses starts on a busy machine, too long holds a slot."""
PUSH_SECONDS = 0.05
_ASK_SECONDS = 0.005
_LEAST_NS = 50_000_000
"""Less than this is left: not worth a start."""


def hold(granted: Callable[[], int]) -> str:
    """ "" once the timer is armed; else why nothing may start.

    `granted` answers the newest deadline (CLOCK_BOOTTIME) that is meant for this attempt, 0 = none.
    """
    give_up = time.monotonic() + WAIT_SECONDS
    while (until := granted()) <= boottime_ns() + _LEAST_NS:
        if time.monotonic() > give_up:
            return f"no live renewal of the cluster's session within {WAIT_SECONDS:g} s"
        time.sleep(_ASK_SECONDS)
    try:
        timer = KillTimer()
        timer.arm(until)
    except OSError as error:
        return f"the kernel gave no timer that could end it: {error}"
    threading.Thread(
        target=_push, args=(timer, granted), name="whimbrel renewals", daemon=True
    ).start()
    return ""


def _push(timer: KillTimer, granted: Callable[[], int]) -> None:
    while True:
        timer.push(granted())
        time.sleep(PUSH_SECONDS)
