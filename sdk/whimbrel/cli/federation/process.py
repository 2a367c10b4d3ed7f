"""One supervised process: started, waited for, started again with a growing pause, stopped.

Owned by the supervisor. Each leads its own session, so a Ctrl-C in the terminal reaches the
supervisor alone.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from itertools import takewhile
from pathlib import Path

from whimbrel.cli.federation.parts import Part
from whimbrel.errors import Refused

PAUSES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
"""Seconds before the nth start in a row. Shorter ones burn a core on a server that can't start."""
STEADY_SECONDS = 10.0
"""After so long a life the pauses begin anew."""
STOP_SECONDS = 10.0
"""Between SIGTERM and SIGKILL. Too short cuts off a graceful stop, too long makes Ctrl-C feel
dead."""

LAST_WORDS = 60
"""Lines. Fewer cut off the rules an agent asks for, more hide what matters of a long traceback."""


class Process:
    def __init__(self, part: Part, log: Path, changed: Callable[[], None]) -> None:
        """`changed` is told whenever the pid is another one."""
        self.part = part
        self._log = log
        self._changed = changed
        self._process: asyncio.subprocess.Process | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._stopping = False
        self._settled = False

    @property
    def pid(self) -> int:
        """0 while it does not run."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else 0

    async def start(self) -> None:
        self._stopping = False
        await self._spawn()
        self._watcher = asyncio.create_task(self._watch(), name=f"watch {self.part.name}")

    def settled(self) -> None:
        """The whole federation is ready: from now on a death is an accident, not a failure to
        start."""
        self._settled = True

    async def _spawn(self) -> None:
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self.part.command,
                env={**os.environ, **self.part.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._changed()

    async def _watch(self) -> None:
        attempt = 0
        while True:
            assert self._process is not None
            born = time.monotonic()
            await self._process.wait()
            if self._stopping or not self.part.restarted or not self._settled:
                self._changed()
                return
            attempt = 0 if time.monotonic() - born > STEADY_SECONDS else attempt + 1
            await asyncio.sleep(PAUSES[min(attempt, len(PAUSES)) - 1] if attempt else PAUSES[0])
            if self._stopping:
                return
            await self._spawn()

    async def ended(self) -> None:
        """Returns when it has ended for good, before the federation was ready."""
        assert self._watcher is not None
        await asyncio.shield(self._watcher)

    def failure(self) -> Refused:
        """Why it did not start, from its last words."""
        try:
            lines = self._log.read_text(errors="replace").strip().splitlines()
        except OSError:
            lines = []
        last = "\n    ".join(line[:400] for line in _last_words(lines))
        return Refused(
            f"{self.part.name} did not start\n    {last}", remedy=f"the whole log: {self._log}"
        )

    async def stop(self, *, grace: float = STOP_SECONDS) -> None:
        self._stopping = True
        process = self._process
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
                process.send_signal(signal.SIGCONT)  # a paused one could not hear it
            try:
                await asyncio.wait_for(process.wait(), grace)
            except TimeoutError:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        if self._watcher is not None:
            await asyncio.gather(self._watcher, return_exceptions=True)

    async def kill(self) -> None:
        self._stopping = True
        process = self._process
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


def _last_words(lines: Sequence[str]) -> Sequence[str]:
    """All of what it said when it gave up, which is no log line (JSON), else its last log lines."""
    spoken = list(takewhile(lambda line: not line.startswith("{"), reversed(lines)))[::-1]
    return spoken[-LAST_WORDS:] or lines[-6:]
