"""The region's object store for the agent: writes below its root, reads any artifact by its
absolute address.

Used by the process launcher (logs of a task that died) and by the session (which of these artifacts
can't you read?).
"""

import asyncio
import hashlib
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import BaseError
from whimbrel.runtime_store import (
    StoreFull,
    UnreadableInput,
    address,
    first_line,
    locate,
    open_store,
)
from whimbrel.spec import Artifact

PROBE_SECONDS = 5.0
"""For one artifact. Too short calls a slow store unreadable and computes again; too long delays a
failover."""
_PROBES_AT_ONCE = 32


class Blobs:
    """`root` is the store's URL, e.g. file:///data/us-east/store; a local folder is made when it is
    missing."""

    def __init__(self, root: str, *, region: str) -> None:
        self.root = root.rstrip("/")
        self.region = region
        parts = urlsplit(root)
        if parts.scheme == "file":
            Path(unquote(parts.path)).mkdir(parents=True, exist_ok=True)
        self._store = open_store(self.root)

    async def put(self, key: str, data: bytes, *, kind: str = "file") -> Artifact:
        """StoreFull when the store does not take it."""
        try:
            await obstore.put_async(self._store, key, data)
        except (OSError, BaseError) as error:
            raise StoreFull(f"can't write to the store {self.root}: {first_line(error)}") from error
        digest = hashlib.sha256(data).hexdigest()
        return Artifact(address(self.root, key), digest, len(data), self.region, kind)

    async def get(self, uri: str) -> bytes:
        """UnreadableInput when it is not there, or its store is not."""
        try:
            store, path = locate(uri)
            return bytes(await (await obstore.get_async(store, path)).bytes_async())
        except (OSError, ValueError, BaseError) as error:
            raise UnreadableInput(uri, first_line(error)) from error

    async def size(self, uri: str) -> int:
        """Bytes of an object; UnreadableInput as `get`."""
        try:
            store, path = locate(uri)
            return (await obstore.head_async(store, path))["size"]
        except (OSError, ValueError, BaseError) as error:
            raise UnreadableInput(uri, first_line(error)) from error

    async def unreadable(self, artifacts: Iterable[Artifact]) -> list[str]:
        """The addresses, of those given, that can't be read from here now."""
        gate = asyncio.Semaphore(_PROBES_AT_ONCE)

        async def bad(artifact: Artifact) -> bool:
            async with gate:
                try:
                    async with asyncio.timeout(PROBE_SECONDS):
                        return await self.size(artifact.uri) != artifact.bytes
                except (UnreadableInput, TimeoutError):
                    return True

        asked = list(artifacts)
        answers = await asyncio.gather(*(bad(artifact) for artifact in asked))
        return [artifact.uri for artifact, lost in zip(asked, answers, strict=True) if lost]
