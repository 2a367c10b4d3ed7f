"""A token bucket: so many writes a second, and a burst after a quiet time.

Asked by `pods/api.py` before each create and delete; who comes first goes first.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable


class Pace:
    """`rate` a second on average, at most `burst` at once."""

    def __init__(
        self,
        rate: float,
        *,
        burst: int,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._rate = rate
        self._burst = burst
        self._clock = clock
        self._sleep = sleep
        self._level = float(burst)
        self._at = clock()

    async def turn(self) -> None:
        """Returns when it is the caller's turn."""
        now = self._clock()
        self._level = min(self._burst, self._level + (now - self._at) * self._rate) - 1
        self._at = now
        if self._level >= 0:
            return
        # A debt, not a queue: each who waits has paid already, so later ones wait longer.
        try:
            await self._sleep(-self._level / self._rate)
        except asyncio.CancelledError:
            self._level += 1
            raise
