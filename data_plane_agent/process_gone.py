"""When nothing of a stopped worker runs any more: its burial, and every process of its session.

Asked by `processes.py` for `Launcher.kill`. An exclusive family has also ended what got away into
sessions of its own by the time it tells of the worker's end.
"""

import asyncio
import os
import signal
from contextlib import suppress

from whimbrel.runtime_frames import start_time

from data_plane_agent.process_limits import in_session
from data_plane_agent.workers import WorkerProcess

_LOOK_SECONDS = 0.005


async def gone(worker: WorkerProcess) -> None:
    await worker.buried.wait()
    # While one member lives the number names this session; another process that has it now says
    # that there is none.
    while start_time(worker.pid) in (0, worker.started) and (left := in_session(worker.pid)):
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        await asyncio.sleep(_LOOK_SECONDS)
