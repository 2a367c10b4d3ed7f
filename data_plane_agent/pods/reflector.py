"""A local copy of one resource of a cluster that is right again after any broken connection.

Run by `launcher.py` beside the agent's loop, over `api.py`; answers from memory, and tells each
change in order to `on_change`, which must not block.
"""

import asyncio
import logging
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

from data_plane_agent.pods.api import Page, Resource
from data_plane_agent.pods.api_errors import ApiError, Expired, Object
from data_plane_agent.pods.api_json import part

log = logging.getLogger(__name__)

RESYNC_SECONDS = 600.0
"""Between two lists, though no watch broke (a running watch is let end first): shorter costs the
API server more, longer leaves a missed change unseen for longer."""
FIRST_DELAY_SECONDS = 0.5
"""At most, after a first failure; twice that after each more. Shorter presses an ill API server."""
LONGEST_DELAY_SECONDS = 10.0
"""Longer spares an API server that comes back; shorter sees sooner that it is back."""
STEADY_SECONDS = 10.0
"""A watch that held for so long ends a row of failures."""
MAX_REWATCHES = 3
"""After so many failures in a row the list is asked for anew: the version may be what is wrong."""


class Source(Protocol):
    """What of a `PodApi` is needed here."""

    async def list(
        self, resource: Resource, *, selector: str = "", more: str = "", limit: int = 500
    ) -> Page: ...

    def watch(
        self, resource: Resource, *, resource_version: str, selector: str = ""
    ) -> AsyncGenerator[tuple[str, Object]]: ...


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
    """List, then watch from the list's version; after a break watch again from the last version
    that was seen whole, so that no change is lost; list anew when that version is too old."""

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
    ) -> None:
        self._source = source
        self._resource: Resource = resource
        self._selector = selector
        self._tell = on_change
        self._clock = clock
        self._sleep = sleep
        self._chance = chance
        self._items: dict[str, Object] = {}
        self._version = ""
        """"" = list first."""
        self._listed_at = 0.0
        self._heard_at: float | None = None
        self._failures = 0
        self._ill = ""
        self.synced = asyncio.Event()
        """Set at the first complete list and never cleared: see `stale_seconds`."""

    @property
    def items(self) -> Mapping[str, Object]:
        """By name. A live view; the objects are shared, not to be changed."""
        return MappingProxyType(self._items)

    @property
    def ill(self) -> str:
        """Why the API server can't be asked at the moment, "" = it answers."""
        return self._ill

    def stale_seconds(self) -> float:
        """Since the API server was last heard to agree with `items`; inf before the first list. A
        quiet cluster is heard about once a minute."""
        return float("inf") if self._heard_at is None else self._clock() - self._heard_at

    async def run(self) -> None:
        """Until cancelled. No error of the API server ends it, not even a refusal: rights that are
        taken away can be given back."""
        while True:
            began = self._clock()
            try:
                if not self._version or began - self._listed_at >= RESYNC_SECONDS:
                    await self._list()
                    began = self._clock()
                if await self._watch():
                    self._failures = 0
                    continue
                failure = ApiError("the API server ends each watch at once")
            except ApiError as error:
                failure = error
            if self._clock() - began >= STEADY_SECONDS:
                self._failures = 0
            await self._recover(failure)

    async def _recover(self, failure: ApiError) -> None:
        self._failures += 1
        if isinstance(failure, Expired):
            self._version = ""
            if self._failures == 1:
                return  # the usual end of an old version: nothing is ill
        elif self._failures > MAX_REWATCHES:
            self._version = ""
        if not self._ill:
            log.warning("%s: the API server is ill: %s", self._resource, failure)
        self._ill = failure.message or type(failure).__name__
        await self._sleep(self._delay(failure.retry_after or 0.0))

    def _delay(self, floor: float) -> float:
        """Full jitter (Brooker 2015, "Exponential backoff and jitter"), never before the server's
        own wish."""
        most = min(LONGEST_DELAY_SECONDS, FIRST_DELAY_SECONDS * 2 ** min(self._failures - 1, 30))
        return floor + self._chance() * most

    def _heard(self) -> None:
        self._heard_at = self._clock()
        if self._ill:
            log.info("%s: the API server answers again", self._resource)
        self._ill = ""

    # -- list -------------------------------------------------------------------------------------

    async def _list(self) -> None:
        """All pages before any of them counts: a list that breaks off has shown nothing."""
        began = self._clock()
        found: dict[str, Object] = {}
        more = ""
        while True:
            page = await self._source.list(self._resource, selector=self._selector, more=more)
            found.update((_name(item), item) for item in page.items)
            if not (more := page.more):
                break
        for name in [name for name in self._items if name not in found]:
            self._remove(name)
        for item in found.values():
            self._put(item)
        self._version = page.resource_version
        self._listed_at = began
        self._heard()
        self.synced.set()
        self._tell(Listed())

    # -- watch ------------------------------------------------------------------------------------

    async def _watch(self) -> bool:
        """Follows changes until the server ends the watch; whether it did show or wait for any."""
        began = self._clock()
        progress = False
        stream = self._source.watch(
            self._resource, resource_version=self._version, selector=self._selector
        )
        async with aclosing(stream) as events:
            async for kind, item in events:
                version = str(part(item, "metadata").get("resourceVersion") or "")
                match kind:
                    case "ADDED" | "MODIFIED":
                        self._put(item)
                    case "DELETED":
                        held = self._items.get(_name(item))
                        if held is not None and _uid(held) == _uid(item):
                            self._items[_name(item)] = item
                            self._remove(_name(item))
                    case _:  # BOOKMARK: only the version counts
                        pass
                if version and version != self._version:
                    self._version = version
                    self._failures = 0
                    progress = True
                self._heard()
        return progress or self._clock() - began >= STEADY_SECONDS

    # -- items ------------------------------------------------------------------------------------

    def _put(self, item: Object) -> None:
        name = _name(item)
        held = self._items.get(name)
        if held is not None:
            if _uid(held) != _uid(item):
                self._remove(name)  # made anew under its name while nobody looked
            elif _version(held) == _version(item):
                return
        self._items[name] = item
        self._tell(Seen(item))

    def _remove(self, name: str) -> None:
        self._tell(Gone(self._items.pop(name)))


def _name(item: Object) -> str:
    return str(part(item, "metadata").get("name") or "")


def _uid(item: Object) -> str:
    return str(part(item, "metadata").get("uid") or "")


def _version(item: Object) -> str:
    """Opaque: compared for equality only."""
    return str(part(item, "metadata").get("resourceVersion") or "")
