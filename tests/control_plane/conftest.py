"""Every test with a database runs on SQLite and on PostgreSQL, each on a fresh one."""

import os
import secrets
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import create_async_engine

from control_plane.database import Database
from control_plane.migrations.upgrade import upgrade
from tests.control_plane.postgres import postgres
from tests.control_plane.world import World


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    with postgres() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgres"])
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    if request.param == "sqlite":
        url = f"sqlite+aiosqlite:///{tmp_path}/control-plane.db"
    else:
        server = request.getfixturevalue("postgres_url")
        if not server:
            missing = "no PostgreSQL: install Debian's `postgresql` or set WHIMBREL_TEST_POSTGRES"
            if "postgres" in os.environ.get("WHIMBREL_REQUIRE", ""):
                pytest.fail(missing)
            pytest.skip(missing)
        name = f"test_{secrets.token_hex(6)}"
        admin = create_async_engine(server, isolation_level="AUTOCOMMIT")
        async with admin.connect() as connection:
            await connection.execute(text(f"CREATE DATABASE {name}"))
        await admin.dispose()
        url = make_url(server).set(database=name).render_as_string(hide_password=False)
    database = Database(url)
    await upgrade(database)
    yield database
    await database.close()


@pytest.fixture
async def world(database: Database, tmp_path: Path) -> World:
    return await World.build(database, tmp_path)
