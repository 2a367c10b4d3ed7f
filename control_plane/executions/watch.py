"""Follows one run: the whole view, again at every change, until it has ended.

Called by `rpc.py`. Told of changes by `Changes` in this process, and looks every half second
for those that another replica wrote.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress

from sqlalchemy import select
from whimbrel.spec import Phase

from control_plane.database import Database, table
from control_plane.executions.changes import Changes
from control_plane.executions.store import Execution
from control_plane.executions.view import View, head_of, view
from control_plane.registry.graphs import Graphs

EXECUTION = table(Execution)
LOOK_SECONDS = 0.5
PAUSE_SECONDS = 0.1
"""Least time between two views of a run that goes on. A view of a large graph costs, so the pause
is also at least ten times what the last one took."""


class Watch:
    def __init__(self, database: Database, graphs: Graphs, changes: Changes) -> None:
        self._database = database
        self._graphs = graphs
        self._changes = changes

    async def follow(self, execution: str, *, end_only: bool = False) -> AsyncIterator[View]:
        """`end_only`: the head at once and the whole when it has ended. Who only waits costs a
        look at one column, not a view a change."""
        event = self._changes.follow(execution)
        try:
            if end_only:
                async with self._database.read() as connection:
                    yield await head_of(connection, execution)
                while not await self._ended(execution):
                    with suppress(TimeoutError):
                        await asyncio.wait_for(event.wait(), LOOK_SECONDS)
                    event.clear()
            last: View | None = None
            while True:
                event.clear()
                began = time.monotonic()
                async with self._database.read() as connection:
                    now = await view(connection, execution, self._graphs)
                if now != last:
                    yield now
                    last = now
                if now.phase.terminal:
                    return
                took = time.monotonic() - began
                await self._pause(execution, event, max(PAUSE_SECONDS, 10 * took))
        finally:
            self._changes.unfollow(execution, event)

    async def _pause(self, execution: str, event: asyncio.Event, least: float) -> None:
        """Till the next view is due; an end is shown at once."""
        due = time.monotonic() + least
        wait = LOOK_SECONDS
        while True:
            try:
                await asyncio.wait_for(event.wait(), max(wait, 0.0))
            except TimeoutError:
                return
            event.clear()
            if await self._ended(execution):
                return
            wait = due - time.monotonic()

    async def _ended(self, execution: str) -> bool:
        async with self._database.read() as connection:
            found = await connection.execute(
                select(EXECUTION.c.phase).where(EXECUTION.c.id == execution)
            )
            return Phase(found.scalar_one()).terminal
