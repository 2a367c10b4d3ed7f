"""How long to wait between tries at something that does not answer."""

import asyncio
import random


class Pause:
    """0.2 s, doubled up to `longest` seconds, with jitter so that regions don't come back as one.

    `longest` shorter: more knocking at a door that is closed; longer: it stands open unnoticed for
    as long.
    """

    def __init__(self, *, longest: float = 5.0) -> None:
        self.longest = longest
        self._seconds = 0.2

    def over(self) -> None:
        self._seconds = 0.2

    async def wait(self) -> None:
        await asyncio.sleep(self._seconds * random.uniform(0.5, 1.0))
        self._seconds = min(self._seconds * 2, self.longest)
