"""Immutable versions: the same meaning again is a no-op, another one under the same name is
refused.

Called by `rpc.py`; hands specifications and bundles to launch and to the ledger's Fetch calls.
"""

import re
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection
from whimbrel.errors import Conflict, InvalidInput, NotFound, Refused
from whimbrel.spec import WorkflowSpec, digest

from control_plane.database import Database
from control_plane.ledger.rows import insert_into
from control_plane.registry.bundles import BUNDLE, Bundles, present
from control_plane.registry.codec import spec_from_bytes, spec_to_bytes
from control_plane.registry.difference import difference
from control_plane.registry.graphs import VERSION

NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
VERSION_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,127}")
LISTED = 100
AT_MOST = 1000


@dataclass(frozen=True, slots=True)
class Key:
    """`version` "" = the newest."""

    project: str
    domain: str
    name: str
    version: str = ""

    def __str__(self) -> str:
        return f"{self.project}/{self.domain}/{self.name}@{self.version or 'newest'}"


@dataclass(frozen=True, slots=True)
class Registered:
    key: Key
    digest: str
    created: bool


@dataclass(frozen=True, slots=True)
class Stored:
    key: Key
    digest: str
    created_ns: int
    spec: bytes


class Registry:
    def __init__(self, database: Database, bundles: Bundles) -> None:
        self._database = database
        self._bundles = bundles

    async def register(
        self, project: str, domain: str, version: str, workflows: Sequence[WorkflowSpec]
    ) -> list[Registered]:
        """All or none of them."""
        for what, value in (("project", project), ("domain", domain)):
            if not NAME.fullmatch(value):
                raise InvalidInput(
                    f"{value!r} is no name for a {what}",
                    remedy="use lower-case letters, digits and -, at most 63",
                )
        if not VERSION_NAME.fullmatch(version):
            raise InvalidInput(
                f"{version!r} is no version", remedy="use letters, digits, . _ + -, at most 128"
            )
        for spec in workflows:
            check(spec)
        async with self._database.write() as connection:
            return [
                await self._register(connection, Key(project, domain, spec.name, version), spec)
                for spec in workflows
            ]

    async def _register(
        self, connection: AsyncConnection, key: Key, spec: WorkflowSpec
    ) -> Registered:
        fresh = digest(spec)
        for bundle in sorted({spec.bundle, *(task.bundle for task in spec.tasks)}):
            if not await present(connection, bundle):
                raise Refused(
                    f"{spec.name} needs bundle {bundle[:12]}, which was not uploaded",
                    remedy="upload the bundle first",
                )
        row = {
            "project": key.project, "domain": key.domain, "name": key.name, "version": key.version,
            "digest": fresh, "spec": spec_to_bytes(spec), "created_ns": time.time_ns(),
        }  # fmt: skip
        # Two may register at once; the key decides who was first.
        created = await connection.execute(
            insert_into(connection)(VERSION)
            .values(row)
            .on_conflict_do_nothing()
            .returning(VERSION.c.digest)
        )
        if created.first() is not None:
            return Registered(key, fresh, created=True)
        stored = stored_of((await connection.execute(by_key(key))).mappings().one())
        if stored.digest != fresh:
            lines = difference(spec_from_bytes(stored.spec), spec)
            raise Conflict(
                f"{key} has another meaning already:\n  " + "\n  ".join(lines),
                remedy="register it under another version",
            )
        return Registered(key, fresh, created=False)

    async def get(self, key: Key) -> Stored:
        async with self._database.read() as connection:
            return await find(connection, key)

    async def list(self, project: str, domain: str, name: str, limit: int) -> list[Stored]:
        query = select(VERSION).order_by(VERSION.c.created_ns.desc())
        for column, value in (("project", project), ("domain", domain), ("name", name)):
            if value:
                query = query.where(VERSION.c[column] == value)
        async with self._database.read() as connection:
            found = await connection.execute(query.limit(min(limit or LISTED, AT_MOST)))
            return [stored_of(row) for row in found.mappings()]

    async def has_bundle(self, digest: str) -> bool:
        async with self._database.read() as connection:
            return await present(connection, digest)

    async def put_bundle(self, pieces: AsyncIterator[tuple[str, bytes]]) -> tuple[str, int]:
        digest, data = await self._bundles.take(pieces)
        await self._bundles.put(digest, data)
        async with self._database.write() as connection:
            if not await present(connection, digest):
                await connection.execute(
                    insert(BUNDLE).values(digest=digest, bytes=len(data), created_ns=time.time_ns())
                )
        return digest, len(data)

    def bundle(self, digest: str) -> AsyncIterator[bytes]:
        return self._bundles.get(digest)


def check(spec: WorkflowSpec) -> None:
    """What a client that is not our compiler might get wrong."""
    seen: set[str] = set()
    tasks = {task.name for task in spec.tasks}
    for node in spec.nodes:
        if node.id in seen:
            raise InvalidInput(f"{spec.name} has two nodes {node.id!r}")
        if node.task not in tasks:
            raise InvalidInput(f"{spec.name}: node {node.id!r} names no task of it: {node.task!r}")
        if missing := set(node.upstream) - seen:
            raise InvalidInput(
                f"{spec.name}: node {node.id!r} comes before what it follows: {sorted(missing)}"
            )
        seen.add(node.id)


def by_key(key: Key) -> Select[Any]:
    query = select(VERSION).where(
        VERSION.c.project == key.project, VERSION.c.domain == key.domain, VERSION.c.name == key.name
    )
    if key.version:
        return query.where(VERSION.c.version == key.version)
    return query.order_by(VERSION.c.created_ns.desc()).limit(1)


async def find(connection: AsyncConnection, key: Key) -> Stored:
    row = (await connection.execute(by_key(key))).mappings().one_or_none()
    if row is None:
        raise NotFound(
            f"no workflow {key} is registered",
            remedy="whimbrel workflow list shows what is; whimbrel register PATH adds to it",
        )
    return stored_of(row)


def stored_of(row: Mapping[Any, Any]) -> Stored:
    return Stored(
        key=Key(row["project"], row["domain"], row["name"], row["version"]),
        digest=row["digest"],
        created_ns=row["created_ns"],
        spec=row["spec"],
    )
