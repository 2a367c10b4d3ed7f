"""Which runs come first."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.add_column(
        "execution", sa.Column("priority", sa.Integer(), nullable=False, server_default="0")
    )
