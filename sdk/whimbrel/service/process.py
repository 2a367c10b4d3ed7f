"""A server's life: run until SIGTERM or SIGINT, then stop gracefully.

Called by each `__main__` with its main coroutine function, which gets the event that says "stop
now".
"""

import asyncio
import signal
from collections.abc import Awaitable, Callable

from whimbrel.service.telemetry import stop_tracing


async def run_until_stopped(main: Callable[[asyncio.Event], Awaitable[None]]) -> None:
    """`main(stop)` serves until `stop` is set and then ends by itself. A second signal cancels
    it."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(main(stop))

    def on_signal() -> None:
        if stop.is_set():
            task.cancel()
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    try:
        await task
    except asyncio.CancelledError:
        if not stop.is_set():
            raise
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
        await asyncio.to_thread(stop_tracing)
