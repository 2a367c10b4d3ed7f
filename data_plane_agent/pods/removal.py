"""Pods of which nothing more is to be said: noted on disk, deleted, never taken up again.

Used by `launcher.py` when an end was taken or an attempt is cancelled; over `api.py`. The note is
why an agent that restarts does not tell the end of a pod twice, which would cost a retry.
"""

import asyncio
import logging
import random
from collections.abc import Collection, Iterable
from contextlib import suppress
from pathlib import Path

from data_plane_agent.pods.api import ApiDown, ApiError, PodApi
from data_plane_agent.pods.clock import REAL, Clock
from data_plane_agent.pods.held import Held
from data_plane_agent.pods.sight import Sight

log = logging.getLogger(__name__)

CANCEL_GRACE_SECONDS = 2
"""For a cancelled pod. Shorter and the API server may forget it before its processes are gone,
longer lets work go on that nobody wants."""
KILL_SECONDS = 20.0
"""To delete all pods when told to at the end. Shorter leaves some to the next agent's sweep."""
LONGEST_PAUSE = 10.0
"""Between two tries. Shorter presses an ill API server, longer leaves pods there for longer."""


class Removal:
    """Pods by uid. A note lies in `folder` until its pod is gone."""

    def __init__(
        self,
        api: PodApi,
        folder: Path,
        *,
        clock: Clock = REAL,
    ) -> None:
        self._api = api
        self._folder = folder
        self._clock = clock
        folder.mkdir(parents=True, exist_ok=True)
        self._noted = {file.name for file in folder.iterdir()}

    def __contains__(self, uid: str) -> bool:
        return uid in self._noted

    def note(self, uid: str) -> None:
        if uid not in self._noted:
            self._noted.add(uid)
            (self._folder / uid).touch()

    def gone(self, uid: str) -> None:
        if uid in self._noted:
            self._noted.discard(uid)
            (self._folder / uid).unlink(missing_ok=True)

    def listed(self, uids: Collection[str]) -> None:
        """These are all the pods there are."""
        for uid in self._noted.difference(uids):
            self.gone(uid)

    def strays(
        self, pods: Iterable[Sight], owners: Iterable[Held], *, oldest_ns: int
    ) -> list[Sight]:
        """Old ones of nobody that nobody deletes."""
        by_name = {one.name: one for one in owners}
        return [
            pod
            for pod in pods
            if not ((held := by_name.get(pod.name)) is not None and held.is_of(pod))
            and not (pod.uid in self or pod.deleting_ns)
            and pod.created_ns < oldest_ns
        ]

    async def stop_all(self, held: Iterable[Held]) -> None:
        work = [self.stop(one.name, one.uid) for one in held if one.uid]
        with suppress(TimeoutError):
            await asyncio.wait_for(asyncio.gather(*work), KILL_SECONDS)

    async def stop(self, name: str, uid: str) -> None:
        """A pod that still runs."""
        await self.remove(name, uid, grace_seconds=CANCEL_GRACE_SECONDS)

    async def remove(
        self, name: str, uid: str, *, after: float = 0.0, grace_seconds: int | None = None
    ) -> None:
        """Until the API server has taken it: rights that are taken away can be given back."""
        self.note(uid)
        await self._clock.sleep(after)
        await self.ask(name, uid, grace_seconds=grace_seconds)

    async def ask(self, name: str, uid: str, *, grace_seconds: int | None = None) -> None:
        """To end by itself, with the grace of its manifest: its end is still to be told, also by
        the next agent."""
        pause = 0.2
        while True:
            try:
                return await self._api.delete(name, uid=uid, grace_seconds=grace_seconds)
            except ApiDown as error:
                floor = error.retry_after or 0.0
            except ApiError as error:
                log.warning("pod %s can't be deleted: %s", name, error.message)
                floor = LONGEST_PAUSE
            await self._clock.sleep(max(floor, pause * (0.5 + random.random() / 2)))
            pause = min(pause * 2, LONGEST_PAUSE)
