"""An event loop whose clock jumps to the next timer once nothing else is to be done: hours of
patience pass in milliseconds, always in the same order.

For tests of code that waits, without any real wait; work in threads is waited for, unhurried.
"""

import asyncio
import functools
import selectors
from collections.abc import Awaitable, Callable
from typing import Any

STUCK_SECONDS = 10.0
"""Of real time, with no timer set and no thread heard from: the test hangs."""


class _Hurried(selectors.DefaultSelector):
    loop: "VirtualLoop"

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            found = super().select(STUCK_SECONDS)
            if not found:
                raise RuntimeError("nothing will ever happen any more")
            return found
        found = super().select(0.01 if timeout > 0 and self.loop.threads else 0)
        if not found and not self.loop.threads:
            self.loop.now += max(0.0, timeout)
        return found


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self.now, self.threads = 1000.0, 0
        selector = _Hurried()
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        return self.now

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:
        future = super().run_in_executor(executor, func, *args)
        self.threads += 1
        future.add_done_callback(self._back)
        return future

    def _back(self, future: object) -> None:
        self.threads -= 1


def virtual(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Runs an async test in a loop of its own: one that others use can't be hurried."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        async def body() -> None:
            await test(*args, **kwargs)

        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            runner.run(body())

    return run


async def until(happened: Callable[[], Any], *, seconds: float = 60.0) -> float:
    """How long it took; it has to within `seconds`."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    while not happened():
        assert loop.time() - began < seconds, "it did not happen"
        await asyncio.sleep(0.02)
    return loop.time() - began
