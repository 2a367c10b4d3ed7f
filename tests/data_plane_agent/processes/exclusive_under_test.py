"""Exclusive tasks that stamp every moment in which they run, and a session whose renewals a test
makes."""

import asyncio
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from whimbrel.runtime_timer import boottime_ns

from data_plane_agent.launcher import Attempt
from tests.data_plane_agent.processes.under_test import (
    DEADLINE,
    Region,
    appears,
    attempt,
    eventually,
)

SECOND = 1_000_000_000

FLOW = """
    import os, subprocess, sys, time
    from whimbrel import current_context, task

    def stamp(file):
        os.write(file, b"%d\\n" % time.clock_gettime_ns(time.CLOCK_BOOTTIME))

    @task
    def stamps(mark: str) -> int:
        file = os.open(mark, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(file, b"%d\\n" % os.getpid())
        while not os.path.exists(mark + ".go"):
            stamp(file)
            time.sleep(0.001)
        return os.getpid()

    @task
    def with_child(mark: str) -> int:
        # A child in a session of its own, whose parent is gone: no process group reaches it.
        code = (
            "import os, sys, time\\n"
            "if os.fork(): os._exit(0)\\n"
            "os.setsid()\\n"
            "file = open(sys.argv[1] + '.child', 'w')\\n"
            "print(os.getpid(), file=file, flush=True)\\n"
            "time.sleep(600)\\n"
        )
        subprocess.run([sys.executable, "-c", code, mark], check=True)
        while not os.path.exists(mark + ".child"):
            time.sleep(0.01)
        return stamps(mark)

    @task
    def forks(mark: str, leaves: bool = False) -> int:
        child = os.fork()
        if child == 0:
            time.sleep(600)
        if leaves:
            os.setpgid(child, child)
        with open(mark + ".child", "w") as file:
            print(child, file=file)
        return stamps(mark)

    @task
    def saves(mark: str) -> int:
        file = os.open(mark, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        asked = current_context().migration_requested
        os.write(file, b"%d\\n%d\\n" % (os.getpid(), asked))
        while not current_context().migration_requested:
            time.sleep(0.005)
        current_context().checkpoint.write(b"so far")
        return 1
"""


@dataclass
class Session:
    """Implements `Renewal`; `for_seconds` from now, 0 = none."""

    until: int = 0

    def until_ns(self) -> int:
        return self.until

    def renew(self, *, for_seconds: float) -> None:
        self.until = boottime_ns() + int(for_seconds * SECOND)

    async def renewed_while(self, condition: Callable[[], bool]) -> None:
        """However long that takes; what is left then is the last."""
        async with asyncio.timeout(DEADLINE):
            while condition():
                self.renew(for_seconds=1.5)
                await asyncio.sleep(0.01)

    async def begun(self, mark: Path) -> int:
        """The process id of the task that leaves its mark."""
        await self.renewed_while(lambda: not first_line(mark))
        return int(first_line(mark))


def exclusive(entry: str, mark: Path, **more: Any) -> Attempt:
    return attempt(f"flow:{entry}", inputs={"mark": str(mark)}, exclusive=True, **more)


def stamps(mark: Path) -> list[int]:
    """Every moment in which it ran, after its process id."""
    return [
        int(line) for line in mark.read_text().splitlines(keepends=True)[1:] if line[-1] == "\n"
    ]


def running(pid: int) -> bool:
    """Not for a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return False
    return stat[stat.rindex(b")") + 2 :][:1] not in (b"Z", b"X")


async def ran_until(mark: Path, moment_ns: int) -> None:
    """It stamps times after this moment, or its process ended before."""
    pid = int(await appears_line(mark))
    await eventually(lambda: not running(pid) or max(stamps(mark), default=0) > moment_ns)


def first_line(mark: Path) -> str:
    """ "" until it is there."""
    line, end, _ = mark.read_text().partition("\n") if mark.exists() else ("", "", "")
    return line if end else ""


async def appears_line(mark: Path) -> str:
    await eventually(lambda: bool(first_line(mark)))
    return first_line(mark)


AGENT = """
import asyncio, sys
from pathlib import Path
from tests.data_plane_agent.processes.exclusive_under_test import Session, exclusive
from tests.data_plane_agent.processes.under_test import Region, attempt

async def main(root: str, entry: str, seconds: str) -> None:
    region, session = Region(Path(root)), Session()
    launcher = region.launcher(renewal=session)
    await launcher.open()
    events = launcher.watch()
    await anext(events)
    mark = region.marks / "m"
    if float(seconds):
        await launcher.start([exclusive(entry, mark)])
        while not (Path(root) / "go").exists():
            session.renew(for_seconds=float(seconds))
            await asyncio.sleep(0.01)
        (region.marks / "until").write_text(f"{session.until}\\n")
    else:
        await launcher.start([attempt(f"flow:{entry}", inputs={"mark": str(mark)})])
    while True:
        await anext(events)

asyncio.run(main(*sys.argv[1:]))
"""


async def agent_killed(region: Region, entry: str, *, seconds: float) -> tuple[int, int]:
    """An agent that gave its exclusive task so long, and was killed as soon as that ran; 0 seconds:
    an idempotent task. Answers the worker's process id and its deadline."""
    command = [sys.executable, "-c", AGENT, str(region.root), entry, str(seconds)]
    agent = await asyncio.create_subprocess_exec(*command)
    until = 0
    try:
        pid = int(await appears_line(region.marks / "m"))
        if seconds:
            (region.root / "go").touch()
            until = int(await appears(region.marks / "until"))
            await ran_until(region.marks / "m", boottime_ns() + 100_000_000)  # it has heard of it
    finally:
        agent.send_signal(signal.SIGKILL)
        await agent.wait()
    return pid, until


async def close_all(region: Region) -> None:
    """Whatever an agent left behind."""
    launcher = region.launcher()
    await launcher.open()
    await launcher.close(kill=True)
