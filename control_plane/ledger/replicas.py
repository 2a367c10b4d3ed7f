"""Copies of what runs have made, in other regions: rows, and which of them is read.

Written by `movement/copying.py`, `movement/replication.py` and by whoever finds an original out of
reach; read by the claim, by takeovers and by whoever shows a run.
"""

import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncConnection
from whimbrel.spec import Artifact

from control_plane import documents
from control_plane.database import table
from control_plane.ledger.rows import insert_into
from control_plane.ledger.store import Replica

REPLICA = table(Replica)


@dataclass(frozen=True, slots=True)
class Copy:
    """In `region`, of the artifact at `uri`."""

    uri: str
    region: str
    artifact: Artifact
    chosen: bool = False


Copies = Mapping[str, Sequence[Copy]]
"""By the address of the original."""


async def copies_of(
    connection: AsyncConnection, executions: Sequence[str]
) -> dict[str, dict[str, list[Copy]]]:
    """Execution -> address of the original -> its copies."""
    found = await connection.execute(
        select(REPLICA)
        .where(REPLICA.c.execution.in_(list(executions)))
        .order_by(REPLICA.c.execution, REPLICA.c.uri, REPLICA.c.region)
    )
    known: dict[str, dict[str, list[Copy]]] = {}
    for row in found.mappings():
        if artifact := documents.artifact(row["copied"]):
            copy = Copy(row["uri"], row["region"], artifact, row["chosen"])
            known.setdefault(row["execution"], {}).setdefault(copy.uri, []).append(copy)
    return known


def best(copies: Iterable[Copy], region: str) -> Copy | None:
    """What a reader in `region` is to read in place of the original: the copy it has beside it,
    else the one that was chosen because nobody reaches the original."""
    chosen: Copy | None = None
    for copy in copies:
        if copy.region == region:
            return copy
        chosen = copy if copy.chosen else chosen
    return chosen


async def keep(
    connection: AsyncConnection, execution: str, *, region: str, copied: Mapping[str, Artifact]
) -> None:
    if not copied:
        return
    insert = insert_into(connection)
    statement = insert(REPLICA)
    await connection.execute(
        statement.on_conflict_do_update(
            index_elements=["execution", "uri", "region"],
            set_={name: statement.excluded[name] for name in ("copied", "at_ns")},
        ),
        [
            {
                "execution": execution,
                "uri": uri,
                "region": region,
                "copied": documents.text(artifact),
                "chosen": False,
                "at_ns": time.time_ns(),
            }
            for uri, artifact in copied.items()
        ],
    )


async def choose(connection: AsyncConnection, execution: str, copies: Iterable[Copy]) -> None:
    """From now on these are read, whoever claims the run."""
    for copy in copies:
        mine = (REPLICA.c.execution == execution, REPLICA.c.uri == copy.uri)
        await connection.execute(
            update(REPLICA).where(*mine).values(chosen=REPLICA.c.region == copy.region)
        )


async def read_originals(connection: AsyncConnection, execution: str, uris: Iterable[str]) -> None:
    """They can be reached again, or nothing else can."""
    for uri in uris:
        await connection.execute(
            update(REPLICA)
            .where(REPLICA.c.execution == execution, REPLICA.c.uri == uri)
            .values(chosen=False)
        )


async def forget(connection: AsyncConnection, execution: str, copies: Iterable[Copy]) -> None:
    """Copies that can't be read: there are none."""
    for copy in copies:
        await connection.execute(
            delete(REPLICA).where(
                REPLICA.c.execution == execution,
                REPLICA.c.uri == copy.uri,
                REPLICA.c.region == copy.region,
            )
        )


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """Of what an agent could not read: `turned` is read from another place next time, of `lost`
    there is none."""

    turned: tuple[str, ...]
    lost: tuple[str, ...]


async def read_elsewhere(
    connection: AsyncConnection, execution: str, uris: Collection[str]
) -> Elsewhere:
    """An original is read as a copy from now on; a copy is forgotten, and another one or the
    original is read. Each step leaves one place fewer to read from, so this ends."""
    known = (await copies_of(connection, [execution])).get(execution, {})
    turned: list[str] = []
    for uri, copies in known.items():
        dead = [copy for copy in copies if copy.artifact.uri in uris]
        rest = [copy for copy in copies if copy not in dead]
        await forget(connection, execution, dead)
        if rest and (uri in uris or any(copy.chosen for copy in dead)):
            await choose(connection, execution, rest[:1])
        turned += [copy.artifact.uri for copy in dead]
        turned += [uri] if rest and uri in uris else []
    return Elsewhere(tuple(turned), tuple(uri for uri in uris if uri not in turned))
