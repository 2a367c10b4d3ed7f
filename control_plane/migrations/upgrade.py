"""Brings the database to the form this code knows, or refuses with a remedy. In one transaction.

Called by `__main__.py` before anything is served.
"""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError
from whimbrel.errors import Refused, Unreachable

from control_plane.database import Database

FOLDER = Path(__file__).parent


async def upgrade(database: Database) -> None:
    try:
        async with database.write() as connection:
            await connection.run_sync(_upgrade)
    except (OSError, DBAPIError) as error:
        raise Unreachable(
            f"can't use the database {database.url.render_as_string()}: {error}",
            remedy="is it there, is it a database, and may this user write to it?",
        ) from error


def _upgrade(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        # Replicas start at once; the second waits and then finds nothing to do.
        connection.execute(text("SELECT pg_advisory_xact_lock(8470)"))
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(FOLDER))
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    current = MigrationContext.configure(connection).get_current_revision()
    if current is not None and current not in known:
        raise Refused(
            f"the database is at revision {current}, which this version of whimbrel does not know",
            remedy="it was written by a newer version: start that one, or use another database",
        )
    command.upgrade(config, "head")
