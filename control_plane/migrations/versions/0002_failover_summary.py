"""What became of a cluster's loss."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "failover_summary",
        sa.Column("cluster", sa.String(), nullable=False),
        sa.Column("cluster_epoch", BIG, nullable=False),
        sa.Column("held", sa.Text(), nullable=False),
        sa.Column("taken", sa.Integer(), nullable=False),
        sa.Column("moved", sa.Integer(), nullable=False),
        sa.Column("waiting", sa.Integer(), nullable=False),
        sa.Column("started_ns", BIG, nullable=False),
        sa.Column("ended_ns", BIG, nullable=False),
        sa.PrimaryKeyConstraint("cluster", "cluster_epoch"),
    )
