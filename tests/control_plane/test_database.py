"""The database: real transactions, migrations that match the rows, a clear no to a newer one."""

import asyncio
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, text
from sqlmodel import SQLModel
from whimbrel.errors import Refused

from control_plane import __main__ as root
from control_plane.database import Database
from control_plane.migrations.upgrade import upgrade

pytestmark = pytest.mark.anyio


async def test_the_migrations_make_the_tables_of_the_code(database: Database) -> None:
    assert root.run, "imports every store"

    def differences(connection: Connection) -> list[object]:
        found = compare_metadata(MigrationContext.configure(connection), SQLModel.metadata)
        return list(found)

    async with database.read() as connection:
        assert await connection.run_sync(differences) == []


async def test_upgrading_again_changes_nothing(database: Database) -> None:
    await upgrade(database)


async def test_a_newer_database_is_refused_with_a_remedy(database: Database) -> None:
    async with database.write() as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(Refused, match=r"revision 9999.*\n.*newer version"):
        await upgrade(database)


async def test_a_failed_transaction_leaves_nothing(database: Database) -> None:
    async def fails() -> None:
        async with database.write() as connection:
            await connection.execute(text("INSERT INTO bundle VALUES ('x', 1, 1)"))
            raise ValueError("in the middle")

    with pytest.raises(ValueError, match="in the middle"):
        await fails()
    async with database.read() as connection:
        assert (await connection.execute(text("SELECT * FROM bundle"))).all() == []


async def test_sqlite_writers_exclude_each_other_from_the_first_read_on(tmp_path: Path) -> None:
    """Two processes' worth of writers: the second's read waits for the first's commit."""
    url = f"sqlite+aiosqlite:///{tmp_path}/db"
    one, two = Database(url), Database(url)
    await upgrade(one)

    async def second() -> int:
        async with two.write() as connection:
            found = await connection.execute(text("SELECT count(*) FROM bundle"))
            return found.scalar_one()

    async with one.write() as connection:
        await connection.execute(text("SELECT 1"))
        pending = asyncio.ensure_future(second())
        await asyncio.wait([pending], timeout=0.2)
        assert not pending.done()
        await connection.execute(text("INSERT INTO bundle VALUES ('x', 1, 1)"))
    assert await pending == 1
    async with one.read() as connection:
        pragmas = [
            (await connection.execute(text(f"PRAGMA {name}"))).scalar_one()
            for name in ("journal_mode", "synchronous", "query_only")
        ]
    assert pragmas == ["wal", 2, 1]
    await one.close()
    await two.close()


async def test_a_caller_that_gives_up_leaves_the_writer_usable(database: Database) -> None:
    """A client's deadline cancels the call wherever it is; nothing stays locked or half-done."""

    async def write(name: str) -> None:
        async with database.write() as connection:
            for part in range(3):
                await connection.execute(text(f"INSERT INTO bundle VALUES ('{name}-{part}', 1, 1)"))

    # asyncpg tells the loop about connections that were cut in the middle; that is no failure here.
    loop = asyncio.get_running_loop()
    handler = loop.get_exception_handler()
    loop.set_exception_handler(lambda _, __: None)
    for index in range(60):
        task = asyncio.ensure_future(write(str(index)))
        for _ in range(index % 20):
            await asyncio.sleep(0)
        if index % 3 == 0:
            await asyncio.sleep(0.0005 * (index % 7))
        task.cancel()
        await asyncio.wait([task])
    async with asyncio.timeout(5):
        await write("last")
    loop.set_exception_handler(handler)
    async with database.read() as connection:
        rows = (await connection.execute(text("SELECT digest FROM bundle"))).scalars().all()
    names = [name.split("-")[0] for name in rows]
    assert all(names.count(name) == 3 for name in names)
    assert "last" in names
