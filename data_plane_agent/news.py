"""What a launcher has to tell, in order, until the engine asks for it.

Filled by the launchers, each with what it keeps of an attempt; their `watch` reads it.
"""

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

from data_plane_agent.launcher import AttemptEvent, Broke, Finished

T = TypeVar("T")


class News(Generic[T]):
    def __init__(self, known: Callable[[T], bool]) -> None:
        """`known`: an attempt may be cancelled while its event waits, and is not told of then."""
        self._known = known
        self._events: list[tuple[AttemptEvent, T]] = []
        self._some = asyncio.Event()
        self._broken: BaseException | None = None

    def tell(self, event: AttemptEvent, of: T) -> None:
        self._events.append((event, of))
        self._some.set()

    def broke(self, error: BaseException) -> None:
        """Whoever asks is to hear of it."""
        self._broken = error
        self._some.set()

    def __len__(self) -> int:
        return len(self._events)

    async def batch(self) -> list[tuple[AttemptEvent, T]]:
        """At least one, and nothing of an attempt after its end. Raises what broke."""
        while True:
            await self._some.wait()
            self._some.clear()
            if self._broken is not None:
                raise self._broken
            told, self._events = self._events, []
            batch: list[tuple[AttemptEvent, T]] = []
            over: set[int] = set()
            for event, of in told:
                if self._known(of) and id(of) not in over:
                    batch.append((event, of))
                    if isinstance(event, Finished | Broke):
                        over.add(id(of))
            if batch:
                return batch
