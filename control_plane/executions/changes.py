"""Who follows a run in this process is told at once; followers elsewhere look every half second.

Notified by the ledger, dispatch and cancel after their transaction; waited on by `watch.py`.
"""

import asyncio
from collections.abc import Iterable


class Changes:
    def __init__(self) -> None:
        self._waiting: dict[str, set[asyncio.Event]] = {}

    def notify(self, executions: Iterable[str]) -> None:
        for execution in executions:
            for event in self._waiting.get(execution, ()):
                event.set()

    def follow(self, execution: str) -> asyncio.Event:
        event = asyncio.Event()
        self._waiting.setdefault(execution, set()).add(event)
        return event

    def unfollow(self, execution: str, event: asyncio.Event) -> None:
        followers = self._waiting.get(execution, set())
        followers.discard(event)
        if not followers:
            self._waiting.pop(execution, None)
