"""One thread, one clock that jumps: everything of a simulated federation happens in an order that a
seed decides.

Below `world.py`. SQL runs inline, so does what the real servers give to threads; the wall clock is
the loop's.
"""

import asyncio
import contextlib
import random
import secrets
import sqlite3
import time
from collections.abc import Coroutine, Generator
from typing import Any

import aiosqlite

from tests.data_plane_agent.virtual_time import VirtualLoop

EPOCH = 1_700_000_000.0
"""Unix seconds at which every simulation begins."""


class SimulatedLoop(VirtualLoop):
    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future


class Connections:
    """For `Database`: connections to one file without a thread each. They end with the process that
    has them: `end` is its death."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._open: list[aiosqlite.Connection] = []
        self._ended = False

    def __call__(self, *_: Any, **__: Any) -> aiosqlite.Connection:
        connection = aiosqlite.connect(self._file)
        here: Any = self
        # In place of the driver's queue and its thread: what is put is done at once.
        connection._tx = connection._thread = here
        self._open.append(connection)
        return connection

    def start(self) -> None:
        """There is no thread."""

    def put_nowait(self, item: tuple[asyncio.Future[Any] | None, Any]) -> None:
        future, work = item
        if self._ended:
            if future is not None:
                future.set_exception(sqlite3.ProgrammingError("its process is dead"))
                future.exception()  # nobody may be left to hear it
            return
        try:
            answer = work()
        except Exception as error:
            assert future is not None
            future.set_exception(error)
        else:
            if future is not None:
                future.set_result(answer)

    def end(self) -> None:
        self._ended = True
        for connection in self._open:
            if connection._connection is not None:
                connection._connection.close()
                connection._connection = None


def wall() -> int:
    """The simulation's Unix nanoseconds, for constructors that take a clock."""
    return int((EPOCH + asyncio.get_running_loop().time()) * 1e9)


def simulate(seed: int, scenario: Coroutine[Any, Any, Any]) -> Any:
    """Runs to the end of the scenario; the same seed, the same history."""
    with asyncio.Runner(loop_factory=SimulatedLoop) as runner, seeded(seed, runner.get_loop()):
        return runner.run(scenario)


@contextlib.contextmanager
def seeded(seed: int, loop: asyncio.AbstractEventLoop) -> Generator[None]:
    """Wall clock and chance, replaced where Python reads them."""
    chance = random.Random(seed)
    kept = (time.time_ns, time.time, time.monotonic, secrets.token_hex)
    state = random.getstate()
    time.time = lambda: EPOCH + loop.time()
    time.time_ns = wall
    time.monotonic = loop.time
    secrets.token_hex = lambda size=32: chance.randbytes(size or 32).hex()
    random.seed(seed)
    try:
        yield
    finally:
        time.time_ns, time.time, time.monotonic, secrets.token_hex = kept
        random.setstate(state)
