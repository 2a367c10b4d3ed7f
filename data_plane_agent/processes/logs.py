"""What an attempt has written so far to stdout and stderr, read from its worker's files from where
it began.

Used by `launcher.py` for live reading, and to keep the logs of an attempt whose worker died.
"""

import logging

from whimbrel.runtime_frames import Now
from whimbrel.runtime_store import StoreFull
from whimbrel.runtime_worker import LOG_LIMIT
from whimbrel.spec import Artifact

from data_plane_agent.attempt_answers import prefix_of
from data_plane_agent.blobs import Blobs
from data_plane_agent.launcher import AttemptKey, Logs
from data_plane_agent.processes.workers import WorkerProcess

log = logging.getLogger(__name__)


def written(worker: WorkerProcess, now: Now, stream: str, *, offset: int, limit: int) -> bytes:
    kind, start = ("out", now.stdout_at) if stream == "stdout" else ("err", now.stderr_at)
    try:
        with worker.file(kind).open("rb") as file:
            file.seek(start + offset)
            return file.read(limit)
    except OSError:
        return b""


async def save_logs(blobs: Blobs, worker: WorkerProcess, key: AttemptKey, now: Now) -> Logs:
    async def save(stream: str) -> Artifact | None:
        data = written(worker, now, stream, offset=0, limit=LOG_LIMIT)
        if not data:
            return None
        try:
            return await blobs.put(f"{prefix_of(key)}/{worker.name}/{stream}", data)
        except StoreFull as error:
            log.warning("a log of %s is lost: %s", prefix_of(key), error)
            return None

    return Logs(await save("stdout"), await save("stderr"))
