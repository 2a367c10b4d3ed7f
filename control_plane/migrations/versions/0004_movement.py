"""The level an assignment asks for, planned moves, drains, and copies of what runs have made."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    # Rows that are there already want to run.
    op.add_column(
        "execution_fence", sa.Column("want", sa.Text(), nullable=False, server_default="run")
    )
    op.add_column("execution_fence", sa.Column("gate", BIG, nullable=False, server_default="0"))
    op.create_table(
        "migration",
        sa.Column("execution", sa.String(), primary_key=True),
        sa.Column("number", BIG, primary_key=True),
        sa.Column("cause", sa.String(), nullable=False),
        sa.Column("drain", sa.String(), nullable=False),
        sa.Column("from_cluster", sa.String(), nullable=False),
        sa.Column("from_epoch", BIG, nullable=False),
        sa.Column("wanted", sa.String(), nullable=False),
        sa.Column("to_cluster", sa.String(), nullable=False),
        sa.Column("phase", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("requested_ns", BIG, nullable=False),
        sa.Column("quiesced_ns", BIG, nullable=False),
        sa.Column("released_ns", BIG, nullable=False),
        sa.Column("claimed_ns", BIG, nullable=False),
        sa.Column("resumed_ns", BIG, nullable=False),
        sa.Column("ended_ns", BIG, nullable=False),
    )
    op.create_index("migration_open", "migration", ["ended_ns"])
    op.create_table(
        "drain",
        sa.Column("cluster", sa.String(), primary_key=True),
        sa.Column("number", BIG, primary_key=True),
        sa.Column("phase", sa.String(), nullable=False),
        sa.Column("total", BIG, nullable=False),
        sa.Column("started_ns", BIG, nullable=False),
        sa.Column("ended_ns", BIG, nullable=False),
    )
    op.create_table(
        "replica",
        sa.Column("execution", sa.String(), primary_key=True),
        sa.Column("uri", sa.Text(), primary_key=True),
        sa.Column("region", sa.String(), primary_key=True),
        sa.Column("copied", sa.Text(), nullable=False),
        sa.Column("chosen", sa.Boolean(), nullable=False),
        sa.Column("at_ns", BIG, nullable=False),
    )
