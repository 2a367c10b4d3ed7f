"""Which runs still want copies of what they have made: few of many, so they have an index."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.add_column(
        "execution",
        sa.Column("replicating", sa.Boolean(), nullable=False, server_default=sa.false()),
    )
    op.create_index(
        "execution_replicating",
        "execution",
        ["id"],
        sqlite_where=sa.text("replicating = 1"),
        postgresql_where=sa.text("replicating"),
    )
