"""SQL, the one store whose loss is a disaster: one transaction a call, on SQLite or PostgreSQL.

Opened by `__main__.py`; every service takes it. `write()` is one transaction that locks what it
reads; `read()` one consistent look. On SQLite writers queue for the one writer connection, so that
a transaction is really exclusive.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

from sqlalchemy import BigInteger, Connection, Integer, Select, Table, event
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlmodel import SQLModel

BUSY_TIMEOUT_MS = 10_000
"""How long SQLite waits for another process's write. Too short: errors beside a backup; too long:
hides a stuck one."""

READERS = 8

Big = BigInteger().with_variant(Integer, "sqlite")
"""Epochs, counters, Unix nanoseconds. SQLite's INTEGER has 64 bits, and only that
autoincrements."""


def table(model: type[SQLModel]) -> Table:
    """The Core table of a row class; hot statements are written with it."""
    return SQLModel.metadata.tables[cast(Any, model).__tablename__]


class Database:
    """`write()` and `read()` give a connection inside one transaction, committed at the end of the
    block. `connect` opens SQLite's connections; None = the driver's own way."""

    def __init__(self, url: str, *, connect: Callable[..., Any] | None = None) -> None:
        self.url = make_url(url)
        self._connect = connect
        self.sqlite = self.url.get_backend_name() == "sqlite"
        if self.sqlite and self.url.database:
            Path(self.url.database).parent.mkdir(parents=True, exist_ok=True)
        self._turn = asyncio.Lock()
        self._writer = self._engine(writer=True)
        self._reader = self._engine(writer=False)

    def _engine(self, *, writer: bool) -> AsyncEngine:
        if not self.sqlite:
            return create_async_engine(
                self.url,
                pool_size=READERS,
                max_overflow=READERS,
                isolation_level="READ COMMITTED",
                pool_pre_ping=True,
            )
        more = {} if self._connect is None else {"async_creator": self._connect}
        engine = create_async_engine(
            self.url, pool_size=1 if writer else READERS, max_overflow=0, **more
        )

        def on_connect(dbapi: Any, _record: object) -> None:
            # The driver itself would start no transaction before a SELECT, and a fence could slip
            # in between check and write; `on_begin` says when.
            dbapi.isolation_level = None
            cursor = dbapi.cursor()
            cursor.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
            cursor.execute("PRAGMA journal_mode=WAL")
            cursor.execute("PRAGMA synchronous=FULL")
            if not writer:
                cursor.execute("PRAGMA query_only=ON")
            cursor.close()

        def on_begin(connection: Connection) -> None:
            connection.exec_driver_sql("BEGIN IMMEDIATE" if writer else "BEGIN")

        event.listen(engine.sync_engine, "connect", on_connect)
        event.listen(engine.sync_engine, "begin", on_begin)
        return engine

    @asynccontextmanager
    async def write(self) -> AsyncGenerator[AsyncConnection]:
        if self.sqlite:
            async with self._turn, self._writer.begin() as connection:
                yield connection
        else:
            async with self._writer.begin() as connection:
                yield connection

    @asynccontextmanager
    async def read(self) -> AsyncGenerator[AsyncConnection]:
        async with self._reader.begin() as connection:
            yield connection

    async def close(self) -> None:
        await self._writer.dispose()
        await self._reader.dispose()


def shared(query: Select[Any]) -> Select[Any]:
    """Row locks that let others commit beside us and keep fences out; SQLite needs none."""
    return query.with_for_update(read=True)


def exclusive(query: Select[Any]) -> Select[Any]:
    return query.with_for_update()
