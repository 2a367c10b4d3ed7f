"""Turns steps into Temporal activities: a name, a heartbeat while they work, our errors told by
their type.

Used by `client.py` when it makes the worker; the steps themselves (`activities.py`, or a fake)
know no Temporal.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

from temporalio import activity

from control_plane.movement.steps import (
    CLAIMED,
    PLACE,
    RELEASE,
    SUMMARIZE,
    TAKE_OVER_BATCH,
    WATCH_LOSS,
    Batch,
    Failover,
    Hold,
    Loss,
    Move,
    Placed,
    Released,
    Steps,
    Summary,
    Taken,
)


def activities_of(steps: Steps) -> list[Callable[..., Any]]:
    """One activity a step, heartbeating every second: a dead process is noticed by its silence."""

    @activity.defn(name=WATCH_LOSS)
    async def watch_loss(hold: Hold) -> Loss:
        async with _heartbeats():
            return await steps.watch_loss(hold)

    @activity.defn(name=TAKE_OVER_BATCH)
    async def take_over_batch(batch: Batch) -> Taken:
        async with _heartbeats():
            return await steps.take_over_batch(batch)

    @activity.defn(name=SUMMARIZE)
    async def summarize(story: Failover) -> Summary:
        async with _heartbeats():
            return await steps.summarize(story)

    @activity.defn(name=RELEASE)
    async def release(move: Move) -> Released:
        async with _heartbeats():
            return await steps.release(move)

    @activity.defn(name=PLACE)
    async def place(move: Move) -> Placed:
        async with _heartbeats():
            return await steps.place(move)

    @activity.defn(name=CLAIMED)
    async def claimed(move: Move) -> bool:
        async with _heartbeats():
            return await steps.claimed(move)

    return [watch_loss, take_over_batch, summarize, release, place, claimed]


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
