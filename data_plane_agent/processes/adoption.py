"""What an earlier agent left on this machine: attempts that still run, by their workers' pages, and
spooled results.

Asked once by `launcher.py` when it opens. Needs no answer from a worker, which may be deep in user
code.
"""

import json
import logging
from collections.abc import Iterator
from pathlib import Path

from whimbrel.runtime_frames import Message
from whimbrel.runtime_worker import spool_file

from data_plane_agent.attempt_answers import key_of, parts_of
from data_plane_agent.launcher import AttemptKey
from data_plane_agent.processes.pool import Pool
from data_plane_agent.processes.workers import Record, WorkerProcess

log = logging.getLogger(__name__)


def running_attempts(pool: Pool) -> Iterator[tuple[WorkerProcess, Record]]:
    """Adopts every worker that lives; yields those that run something, with a record of it."""
    for file in sorted(pool.folder.glob("*.json")):
        about = _read(file)
        worker = pool.adopt(file.stem, about["family"]) if "family" in about else None
        if worker is None or worker.page is None or not worker.now().running:
            continue
        meta = worker.page.meta
        record = Record(
            key_of(meta["k"]),
            meta["d"],
            worker.family.lane(meta["cpu"], meta["mem"]),
            meta["timeout"],
            meta["limit"],
            None,
        )
        record.exclusive, record.spooled = meta.get("exclusive", False), True
        record.worker, record.seq, record.announced = worker, worker.now().seq, True
        worker.assigned[record.seq] = record
        yield worker, record


def spooled_results(data_dir: Path) -> Iterator[Message]:
    for file in sorted((data_dir / "spool").glob("*.json")):
        if message := _answer(file):
            yield message


def spooled_result(data_dir: Path, key: AttemptKey) -> Message | None:
    file = spool_file(data_dir, parts_of(key))
    return _answer(file) if file.exists() else None


def _answer(file: Path) -> Message | None:
    """None for what nobody can say whose it is: user code may write there too."""
    match message := _read(file):
        case {"k": [str(), str(), int(), int()], "d": str()}:
            return message
        case _:
            log.warning("%s is no answer of an attempt", file)
            return None


def _read(file: Path) -> Message:
    try:
        return json.loads(file.read_text())
    except (OSError, ValueError) as error:
        log.warning("%s is no use: %s", file, error)
        return {}
