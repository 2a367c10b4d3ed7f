"""When nothing of a stopped worker runs any more: its burial, every process of its session, and, of
exclusive work whose family is dead too, all that descends from that family.

Asked by `launcher.py` for `Launcher.kill` and by `ends.py` before the end of an exclusive
attempt is told. What a task started with an environment of its own, in a session of its own, is
found by a living family only.
"""

import asyncio
import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from whimbrel.runtime_frames import start_time

from data_plane_agent.processes.workers import MARK, WorkerProcess

_FIRST_PAUSE, _LONGEST_PAUSE = 0.005, 0.1


async def gone(workers: Sequence[WorkerProcess]) -> None:
    for worker in workers:
        await worker.buried.wait()
    pause = _FIRST_PAUSE
    while workers and await asyncio.to_thread(end_all_of, workers):
        await asyncio.sleep(pause)
        pause = min(pause * 2, _LONGEST_PAUSE)


def end_all_of(workers: Sequence[WorkerProcess]) -> bool:
    """SIGKILL to all that is left of them; whether there was anything."""
    # While one member lives the number names this session; another process that has it now says
    # that there is none.
    sessions = {one.pid for one in workers if one.pid and start_time(one.pid) in (0, one.started)}
    orphaned = {one.mark for one in workers if one.exclusive and one.mark and not one.kept}
    marks = [f"{MARK}={mark}".encode() for mark in orphaned]
    found = False
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if _session(folder) in sessions or (marks and _marked(folder, marks)):
                found = True
                os.kill(int(folder.name), signal.SIGKILL)
    return found


def _session(process: Path) -> int:
    """0 of one that does not run any more."""
    stat = (process / "stat").read_bytes()
    state, _, _, session = stat[stat.rindex(b")") + 2 :].split(maxsplit=4)[:4]
    return 0 if state in (b"Z", b"X") else int(session)


def _marked(process: Path, marks: Sequence[bytes]) -> bool:
    """The dead have no environment."""
    environment = (process / "environ").read_bytes().split(b"\0")
    return any(mark in environment for mark in marks)
