"""Specifications by digest, decoded once: they are immutable.

Asked by launch, the ledger (is every node's output there?), and movement (what was made from
what?).
"""

from collections import OrderedDict

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection
from whimbrel.errors import NotFound
from whimbrel.spec import WorkflowSpec

from control_plane.database import table
from control_plane.registry.codec import spec_from_bytes
from control_plane.registry.store import Version

VERSION = table(Version)
KEPT = 64
"""Decoded specifications in memory; one of 10,000 nodes takes about 10 MB."""


class Graphs:
    def __init__(self) -> None:
        self._kept: OrderedDict[str, WorkflowSpec] = OrderedDict()

    async def get(self, connection: AsyncConnection, digest: str) -> WorkflowSpec:
        if digest in self._kept:
            self._kept.move_to_end(digest)
            return self._kept[digest]
        spec = spec_from_bytes(await spec_bytes(connection, digest))
        self._kept[digest] = spec
        if len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return spec


async def spec_bytes(connection: AsyncConnection, digest: str) -> bytes:
    found = await connection.execute(
        select(VERSION.c.spec).where(VERSION.c.digest == digest).limit(1)
    )
    data = found.scalar_one_or_none()
    if data is None:
        raise NotFound(f"no workflow has the specification {digest}")
    return data
