"""What a worker used and how it ended: memory of a process with its children, the kernel's OOM
count, exit statuses.

Asked by `launcher.py` every few milliseconds; knows /proc and nothing of launchers.
"""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

from whimbrel.spec import Failure, Owner

_PAGE = os.sysconf("SC_PAGE_SIZE")
_OWN_SIGNALS = (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL)


def used_memory(pid: int) -> int:
    """Bytes resident in the process, and what its descendants hold beyond the pages they share with
    it."""
    return _statm(pid)[0] + sum(
        resident - shared for resident, shared in map(_private, _descendants(pid))
    )


def total_memory() -> int:
    return os.sysconf("SC_PHYS_PAGES") * _PAGE


def oom_kills() -> int:
    """How many processes the kernel has killed for want of memory since it started."""
    try:
        text = Path("/proc/vmstat").read_text()
    except OSError:
        return 0
    _, found, rest = text.partition("\noom_kill ")
    return int(rest.split(maxsplit=1)[0]) if found else 0


def megabytes(size: float) -> str:
    return f"{size / (1 << 20):.0f} MiB"


def over_limit(used: int, limit: int) -> Failure:
    return Failure(
        Owner.USER,
        "oom",
        f"used {megabytes(used)} of memory, its limit is {megabytes(limit)}: ask for more with "
        f"limits=Resources(mem=...) or hold less at a time",
    )


def timed_out(seconds: float) -> Failure:
    return Failure(Owner.USER, "timeout", f"did not end within its timeout of {seconds:g} s")


def why_it_ended(status: int | None, *, oom: bool) -> Failure:
    """`status` as of os.waitstatus_to_exitcode, None when nobody could tell; `oom`: the kernel
    killed for memory."""
    match status:
        case int() if status >= 0:
            return Failure(Owner.USER, "exited", f"exited with status {status} without a result")
        case int() if -status in _OWN_SIGNALS:
            name = signal.Signals(-status).name
            return Failure(Owner.USER, "exited", f"ended by {name} without a result")
        case _ if oom:
            return Failure(
                Owner.USER, "oom", "killed by the kernel: the machine had no memory left for it"
            )
        case None:
            return Failure(Owner.SYSTEM, "worker_lost", "its process is gone, nobody saw how")
        case _:
            by = f"signal {-status}"
            return Failure(
                Owner.SYSTEM, "worker_lost", f"its process was killed from outside ({by})"
            )


def _statm(pid: int) -> tuple[int, int]:
    try:
        _, resident, shared, *_ = Path(f"/proc/{pid}/statm").read_text().split()
    except (OSError, ValueError):
        return 0, 0
    return int(resident) * _PAGE, int(shared) * _PAGE


def _private(pid: int) -> tuple[int, int]:
    """Resident bytes, and those of them that a fork shares with its parent."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
        sizes = {
            name: int(rest.split()[0]) * 1024 for name, _, rest in (x.partition(":") for x in lines)
        }
    except (OSError, ValueError, IndexError):
        return _statm(pid)
    resident = sizes.get("Rss", 0)
    return resident, resident - sizes.get("Private_Dirty", 0) - sizes.get("Private_Clean", 0)


def _descendants(pid: int) -> Iterator[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return
    for child in map(int, children):
        yield child
        yield from _descendants(child)
