"""Copies of other regions' objects in this region's store, named by their content.

Called by `questions.py`; reads and writes through the store. A copy that takes longer than one
answer goes on, and is found by the next question.
"""

import asyncio
import logging
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol
from urllib.parse import quote

from whimbrel.errors import Refused
from whimbrel.residency import allows
from whimbrel.runtime_store import StoreFull, UnreadableInput, address, name_of
from whimbrel.spec import Artifact

ANSWER_SECONDS = 25.0
"""Of one question, which its asker ends after 30. What is not copied by then goes on."""

AT_ONCE = 4
"""Objects copied at the same time. More takes the link from the tasks, fewer leaves it idle where
the round trip is long."""

DIGEST = re.compile("[0-9a-f]{64}")

log = logging.getLogger(__name__)


class Store(Protocol):
    @property
    def root(self) -> str: ...
    @property
    def region(self) -> str: ...
    async def take(self, artifact: Artifact, key: str) -> None: ...


class Copies:
    def __init__(self, store: Store, *, answer_seconds: float = ANSWER_SECONDS) -> None:
        self._store = store
        self._seconds = answer_seconds
        self._going: dict[str, asyncio.Task[None]] = {}
        self._gate = asyncio.Semaphore(AT_ONCE)

    async def copy(self, artifacts: Sequence[Artifact], *, folder: str) -> dict[str, Artifact]:
        """By the address of the original: what lies here now. The rest is left out, and told to
        the log; `folder` is PROJECT/DOMAIN of the run that reads them."""
        asked = {artifact.uri: (artifact, key_of(artifact, folder)) for artifact in artifacts}
        for artifact, key in asked.values():
            if key not in self._going:
                self._going[key] = asyncio.create_task(self._take(artifact, key))
        mine = {key: self._going[key] for _, key in asked.values()}
        done: set[asyncio.Task[None]] = set()
        if mine:
            done, _ = await asyncio.wait(mine.values(), timeout=self._seconds)
        copied: dict[str, Artifact] = {}
        for uri, (artifact, key) in asked.items():
            task = mine[key]
            if task not in done:
                continue
            self._going.pop(key, None)
            error = task.exception()
            if error is None:
                copied[uri] = self._copy_of(artifact, key)
            elif isinstance(error, UnreadableInput | StoreFull | Refused):
                log.warning("%s is not copied: %s", uri, error)
            else:
                log.error("%s is not copied: a bug", uri, exc_info=error)
        return copied

    async def _take(self, artifact: Artifact, key: str) -> None:
        if not allows(artifact.allowed_regions, self._store.region):
            allowed = ", ".join(artifact.allowed_regions)
            raise Refused(f"it must stay in {allowed}; this is {self._store.region}")
        if not DIGEST.fullmatch(artifact.sha256):
            raise Refused("nothing says what its content is to be")
        async with self._gate:
            await self._store.take(artifact, key)

    def _copy_of(self, artifact: Artifact, key: str) -> Artifact:
        # Consumers name their file after the original; the key says nothing of it.
        uri = f"{address(self._store.root, key)}#{quote(name_of(artifact.uri))}"
        return replace(artifact, uri=uri, region=self._store.region)


def key_of(artifact: Artifact, folder: str) -> str:
    return f"{folder.strip('/')}/replicas/{artifact.sha256[:2]}/{artifact.sha256}"
