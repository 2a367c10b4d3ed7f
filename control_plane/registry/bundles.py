"""Code bundles in the control plane's own object store: checked by digest, never half-written.

Called by `service.py` with a stream of pieces; the row is written after the object is whole, so
what the row names is there.
"""

import hashlib
from collections.abc import AsyncIterator

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, ObjectStore, from_url
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection
from whimbrel.errors import InvalidInput, NotFound, TooLarge, Unreachable

from control_plane.database import table
from control_plane.registry.store import Bundle

BUNDLE = table(Bundle)
LIMIT = 32 * 1024 * 1024
"""Bytes of a bundle. Agents hold one in memory while they check it; code needs less, data is no
code."""

PIECE = 1024 * 1024


class Bundles:
    """`url` names a folder (file:///...) or a bucket."""

    def __init__(self, url: str) -> None:
        if url.startswith("file://"):
            self._store: ObjectStore = LocalStore(url.removeprefix("file://"), mkdir=True)
        else:
            self._store = from_url(url)

    async def take(self, pieces: AsyncIterator[tuple[str, bytes]]) -> tuple[str, bytes]:
        """Gathers (digest, data) pieces, the digest in the first, and checks them."""
        wanted, data = "", bytearray()
        async for digest, piece in pieces:
            wanted = wanted or digest
            data += piece
            if len(data) > LIMIT:
                raise TooLarge(
                    f"the bundle is larger than {LIMIT // 1024 // 1024} MiB",
                    remedy="leave data and virtual environments out; they belong into a File input",
                )
        found = hashlib.sha256(data).hexdigest()
        if found != wanted:
            raise InvalidInput(
                f"the bundle's digest is {found}, announced was {wanted or 'none'}",
                remedy="send it again",
            )
        return wanted, bytes(data)

    async def put(self, digest: str, data: bytes) -> None:
        """One put is all or nothing, in a folder (renamed into place) and in a bucket."""
        try:
            await obstore.put_async(self._store, digest, data)
        except BaseError as error:
            raise Unreachable(
                f"the bundle store did not take the bundle: {error}",
                remedy="look at its free space and access rights",
            ) from error

    async def get(self, digest: str) -> AsyncIterator[bytes]:
        try:
            answer = await obstore.get_async(self._store, digest)
            async for piece in answer.stream(min_chunk_size=PIECE):
                data = bytes(piece)
                for start in range(0, len(data), PIECE):
                    yield data[start : start + PIECE]
        except FileNotFoundError as error:
            raise NotFound(f"no bundle {digest}") from error


async def present(connection: AsyncConnection, digest: str) -> bool:
    found = await connection.execute(select(BUNDLE.c.digest).where(BUNDLE.c.digest == digest))
    return found.first() is not None
