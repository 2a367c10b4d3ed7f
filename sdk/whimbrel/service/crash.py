"""Named crash points: a test that sets WHIMBREL_CRASH_AT kills this process between two steps.

Called by the servers at the places where a crash must lose nothing; without the variable it is one
dictionary look-up.
"""

import os
import signal

CRASH_AT = "WHIMBREL_CRASH_AT"
CRASH_ONCE = "WHIMBREL_CRASH_ONCE"


def crash_point(name: str) -> None:
    """SIGKILL of this process if the environment asks for it here.

    WHIMBREL_CRASH_ONCE names a file: the crash happens only while it does not exist, and creates
    it.
    """
    if os.environ.get(CRASH_AT) != name:
        return
    if once := os.environ.get(CRASH_ONCE):
        try:
            os.close(os.open(once, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return
    os.kill(os.getpid(), signal.SIGKILL)
