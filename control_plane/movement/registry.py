"""Turns steps into Temporal activities: a name, a heartbeat while they work, our errors told by
their type.

Used by `worker.py` when it makes the workers; the steps themselves (`activities.py`,
`migrating.py`, or a fake) know no Temporal.
"""

import asyncio
import functools
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from temporalio import activity

from control_plane.movement import planned
from control_plane.movement.planned import PlannedSteps
from control_plane.movement.steps import (
    CLAIMED,
    PLACE,
    RELEASE,
    SUMMARIZE,
    TAKE_OVER_BATCH,
    WATCH_LOSS,
    Steps,
)


def activities_of(steps: Steps) -> list[Callable[..., Any]]:
    return [
        _activity(WATCH_LOSS, steps.watch_loss),
        _activity(TAKE_OVER_BATCH, steps.take_over_batch),
        _activity(SUMMARIZE, steps.summarize),
        _activity(RELEASE, steps.release),
        _activity(PLACE, steps.place),
        _activity(CLAIMED, steps.claimed),
    ]


def planned_activities_of(steps: PlannedSteps) -> list[Callable[..., Any]]:
    leaving, settling, draining = steps.leaving, steps.settling, steps.draining
    return [
        _activity(planned.PREPARE, leaving.prepare),
        _activity(planned.QUIESCE, leaving.quiesce),
        _activity(planned.RELEASED, leaving.released),
        _activity(planned.TAKE, leaving.take),
        _activity(planned.HAND_OVER, settling.hand_over),
        _activity(planned.SEND, settling.send),
        _activity(planned.CLAIMED, settling.claimed),
        _activity(planned.RESUMED, settling.resumed),
        _activity(planned.END, settling.end),
        _activity(planned.EMPTY, draining.empty),
    ]


def _activity(name: str, step: Callable[[Any], Awaitable[Any]]) -> Callable[..., Any]:
    """Heartbeats every second: a dead process is noticed by its silence."""

    @activity.defn(name=name)
    @functools.wraps(step)
    async def told(argument: Any) -> Any:
        async with _heartbeats():
            return await step(argument)

    return told


@asynccontextmanager
async def _heartbeats() -> AsyncGenerator[None]:
    async def beat() -> None:
        while True:
            activity.heartbeat()
            await asyncio.sleep(1)

    beating = asyncio.create_task(beat(), name="movement heartbeat")
    try:
        yield
    finally:
        beating.cancel()
