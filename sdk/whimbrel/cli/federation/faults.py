"""Faults of one region, for demonstrations and tests: real signals, a real link, a store that is
really gone.

Called by the supervisor for `whimbrel sandbox`. A worker leads its own session, so it is found by
its own file.
"""

import contextlib
import json
import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path

import psutil

from whimbrel.runtime_frames import start_time

SAME_BIRTH_SECONDS = 1.0
"""Two processes with one pid are further apart; the clock of the same one reads alike."""


def processes_of(agent_pid: int, workers: Path) -> list[int]:
    """The agent with everything it started, and the workers that earlier agents left behind."""
    roots = [agent_pid] if agent_pid else []
    for file in workers.glob("*.json"):
        with contextlib.suppress(OSError, ValueError, KeyError):
            about = json.loads(file.read_text())
            if start_time(about["pid"]) == about["start"]:
                roots.append(about["pid"])
    roots += families_of(workers.parent)
    found: dict[int, None] = {}
    for pid in roots:
        with contextlib.suppress(psutil.NoSuchProcess):
            root = psutil.Process(pid)
            found[pid] = None
            found |= dict.fromkeys(child.pid for child in root.children(recursive=True))
    return list(found)


def families_of(agent_folder: Path) -> list[int]:
    """Parents of workers outlive their agent as well; their arguments name its folder."""
    mark = json.dumps(str(agent_folder))
    return [
        process.pid
        for process in psutil.process_iter(["cmdline"])
        if any(mark in word for word in process.info["cmdline"] or ())
    ]


def send(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def kill_again(born: Mapping[int, float]) -> None:
    """SIGKILL to those pids that are still the processes born then; returns when none runs."""
    found: list[psutil.Process] = []
    for pid, when in born.items():
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(pid)
            if abs(process.create_time() - when) < SAME_BIRTH_SECONDS:
                process.kill()
                found.append(process)
    while any(runs(process) for process in found):
        time.sleep(0.02)


def runs(process: psutil.Process) -> bool:
    try:
        # A container's first process may never bury the dead: a zombie holds neither port nor file.
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def lose(store: Path) -> None:
    """From now on nobody can read it."""
    if store.exists():
        store.rename(store.with_name("store.lost"))


def find_again(store: Path) -> None:
    lost = store.with_name("store.lost")
    if not lost.exists():
        return
    if store.exists():
        # Someone wrote while it was away: what is new joins what was there.
        for path in sorted(store.rglob("*")):
            target = lost / path.relative_to(store)
            if path.is_dir():
                target.mkdir(parents=True, exist_ok=True)
            else:
                path.replace(target)
        for path in sorted(store.rglob("*"), reverse=True):
            path.rmdir()
        store.rmdir()
    lost.rename(store)
