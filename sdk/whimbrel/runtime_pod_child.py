"""The child of a pod's process 1: runs the user's code once and leaves its answer in a file.

Forked by `runtime_pod.py`; calls `runtime_task.run_attempt`. Files, not pipes, because user code
may close every descriptor it did not open.
"""

import ctypes
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from typing import NoReturn

from whimbrel.runtime_exclusive import hold
from whimbrel.runtime_frames import Message
from whimbrel.runtime_order import Order, Pages, SignedStore
from whimbrel.runtime_store import plain
from whimbrel.spec import Artifact, Failure, Owner

_PR_SET_PDEATHSIG = 1

_BUG = 70


@dataclass(frozen=True, slots=True)
class Desk:
    """The folder that supervisor and child share; each file is written whole or not at all."""

    folder: Path

    @property
    def bundle(self) -> Path:
        return self.folder / "bundle"

    @property
    def log(self) -> Path:
        return self.folder / "log"

    def put(self, name: str, message: Message) -> None:
        fresh = self.folder / f"{name}.{os.getpid()}"
        fresh.write_text(json.dumps(message))
        fresh.rename(self.folder / f"{name}.json")

    def get(self, name: str) -> Message | None:
        with suppress(OSError, ValueError):
            return json.loads((self.folder / f"{name}.json").read_bytes())
        return None


def run(
    order: Order,
    pages: Pages,
    desk: Desk,
    *,
    output: int,
    moving: Callable[[], bool],
    granted: Callable[[], int] | None,
) -> NoReturn:
    """`output` is the descriptor that takes stdout and stderr, in order; `granted` answers until
    when an exclusive attempt may run."""
    pid = os.getpid()
    try:
        _enter(desk, output)
        answer = _attempt(order, pages, desk, moving, granted)
        if os.getpid() != pid:
            os._exit(0)  # user code forked, and the copy came back too: only one may answer
        with suppress(BaseException):  # user code may have closed or replaced them
            sys.stdout.flush()
            sys.stderr.flush()
        ctypes.CDLL(None).fflush(None)
        desk.put("answer", answer)
        os._exit(0)  # neither threads nor exit handlers of user code keep the pod
    except BaseException:
        with suppress(BaseException):
            traceback.print_exc()
            sys.stderr.flush()
        os._exit(_BUG)


def _attempt(
    order: Order,
    pages: Pages,
    desk: Desk,
    moving: Callable[[], bool],
    granted: Callable[[], int] | None,
) -> Message:
    from whimbrel.runtime_task import broken, run_attempt

    if granted is not None and (why := hold(granted)):
        return broken(Failure(Owner.SYSTEM, "no_renewal", f"not started: {why}"))

    def noted(artifact: Artifact, at: int) -> None:
        desk.put("saved", {"artifact": plain(artifact), "at": at})

    store = SignedStore(pages, region=order.region, scratch=os.getcwd(), noted=noted)
    frame: Message = {
        "meta": {"k": list(order.key)},
        "entry": order.entry,
        "in": order.inputs,
        "checkpoint": order.checkpoint,
        "trace": order.trace,
    }
    return run_attempt(frame, store, store.saved, seat_bundle=str(desk.bundle), moving=moving)


def _enter(desk: Desk, output: int) -> None:
    os.setsid()
    end_with_parent()
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    for number in (1, 2):
        os.dup2(output, number)
    os.closerange(3, max(nothing, output) + 1)
    for text in (sys.stdout, sys.stderr):
        if isinstance(text, TextIOWrapper):
            text.reconfigure(line_buffering=True)
    go_first()
    if not os.access(os.environ.get("HOME") or "/", os.W_OK):  # caches of libraries go there
        os.environ["HOME"] = str(desk.folder)
    sys.path.insert(0, str(desk.bundle))
    sys.dont_write_bytecode = True


def end_with_parent() -> None:
    """The kernel ends a task whose process 1 is gone: nobody would hear of it."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def go_first() -> None:
    """The kernel takes the task before process 1, who can tell of it; and before no other pod: one
    that keeps to its request must not pay for a neighbour's excess."""
    adjustment = Path("/proc/self/oom_score_adj")
    with suppress(OSError, ValueError):
        adjustment.write_text(str(min(1000, int(adjustment.read_text()) + 1)))
