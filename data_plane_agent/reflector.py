"""A local copy of one resource of a cluster that is right again after any broken connection.

Run by `pods.py` beside the agent's loop, over `pod_api.py`; answers from memory, and tells each
change in order to `on_change` (which must not block).
"""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from data_plane_agent.pod_api import Object, Page, Resource


class Source(Protocol):
    async def list(
        self, resource: Resource, *, selector: str = "", more: str = "", limit: int = 500
    ) -> Page: ...

    def watch(
        self, resource: Resource, *, resource_version: str, selector: str = ""
    ) -> AsyncIterator[tuple[str, Object]]: ...


@dataclass(frozen=True, slots=True)
class Seen:
    """The object is there, new or changed."""

    object: Object


@dataclass(frozen=True, slots=True)
class Gone:
    """The object is no more; this is the last that was known of it."""

    object: Object


@dataclass(frozen=True, slots=True)
class Listed:
    """`items` is complete. What vanished meanwhile was told as Gone before it."""


Change = Seen | Gone | Listed


class Reflector:
    """`items` by name (of objects of one namespace, or of none)."""

    items: Mapping[str, Object]
    synced: asyncio.Event
    """Set at the first complete list, never cleared: see `stale_seconds`."""

    def __init__(
        self,
        source: Source,
        resource: Resource,
        *,
        on_change: Callable[[Change], None],
        selector: str = "",
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        chance: Callable[[], float] = random.random,
    ) -> None: ...

    def stale_seconds(self) -> float:
        """Since the API server was last heard to agree with `items`; inf before the first list."""
        raise NotImplementedError

    @property
    def ill(self) -> str:
        """Why the API server can't be asked at the moment, "" = it answers."""
        raise NotImplementedError

    async def run(self) -> None:
        """Never returns; raises only what is a bug, or Denied/Invalid (the agent's rights)."""
        raise NotImplementedError
