"""Servers of a cluster as processes: started in a host's namespace, recorded, found again.

Used by cluster.py, node.py and store.py to start them and by faults.py to hurt them. A record
outlives the process that wrote it, so that another test run or a person can go on from it.
"""

import contextlib
import json
import os
import signal
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.e2e.kubernetes.network import Host, run
from tests.e2e.kubernetes.state import until


@dataclass(frozen=True, slots=True)
class Part:
    """`born` tells a process from a later one that was given the same pid."""

    name: str
    command: tuple[str, ...]
    log: str
    pid: int
    born: str

    @property
    def alive(self) -> bool:
        return _born(self.pid) == self.born != ""


def start(name: str, host: Host, folder: Path, *command: str) -> Part:
    """In its own session: it outlives who started it, and no Ctrl-C reaches it."""
    log = folder / "log" / f"{name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    return _spawn(folder, name, host.inside(*command), str(log))


def again(name: str, folder: Path) -> Part:
    """The same command once more; ends what still runs of it."""
    old = find(name, folder)
    kill([old.pid] if old.alive else [])
    return _spawn(folder, name, old.command, old.log)


def find(name: str, folder: Path) -> Part:
    try:
        record: dict[str, Any] = json.loads((folder / f"{name}.json").read_text())
    except FileNotFoundError:
        raise LookupError(f"no part {name!r} was ever started in {folder}") from None
    record["command"] = tuple(record["command"])
    return Part(**record)


def send(part: Part, number: signal.Signals) -> None:
    if not part.alive:
        raise LookupError(f"{part.name} (pid {part.pid}) does not run; its log: {part.log}")
    os.kill(part.pid, number)
    if number == signal.SIGKILL:
        kill([part.pid])


def kill(pids: Iterable[int]) -> None:
    """SIGKILL, and back only when they are gone."""
    left = set(pids)
    for pid in left:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    until(f"processes {sorted(left)} are gone", lambda: not any(_born(pid) for pid in left))


def unmount(folder: Path) -> None:
    mounted = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for mount in sorted((m for m in mounted if m.startswith(f"{folder}/")), reverse=True):
        run("umount", "-l", mount)


def _spawn(folder: Path, name: str, command: tuple[str, ...], log: str) -> Part:
    # posix_spawn, not Popen: nobody here waits for the end of what is meant to outlive us.
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    pid = os.posix_spawnp(
        command[0], command, os.environ, setsid=True,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, log, flags, 0o644),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
    )  # fmt: skip
    part = Part(name, command, log, pid, _born(pid))
    (folder / f"{name}.json").write_text(json.dumps(asdict(part)))
    return part


def _born(pid: int) -> str:
    """When the process began, in ticks since boot; empty when it is gone or waits to be reaped."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return "" if after_name[0] in "ZX" else after_name[19]
