"""The first form: fences, outputs, runs, clusters, versions."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "bundle",
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("bytes", BIG, nullable=False),
        sa.Column("created_ns", BIG, nullable=False),
        sa.PrimaryKeyConstraint("digest"),
    )
    op.create_table(
        "checkpoint",
        sa.Column("execution", sa.String(), nullable=False),
        sa.Column("node", sa.String(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("epoch", BIG, nullable=False),
        sa.Column("artifact", sa.Text(), nullable=False),
        sa.Column("at_ns", BIG, nullable=False),
        sa.PrimaryKeyConstraint("execution", "node"),
    )
    op.create_table(
        "cluster",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("region", sa.String(), nullable=False),
        sa.Column("labels", sa.Text(), nullable=False),
        sa.Column("scheduling", sa.String(), nullable=False),
        sa.Column("cluster_epoch", BIG, nullable=False),
        sa.Column("incarnation", sa.String(), nullable=False),
        sa.Column("registered_ns", BIG, nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "event_cursor",
        sa.Column("cluster", sa.String(), nullable=False),
        sa.Column("cluster_epoch", BIG, nullable=False),
        sa.Column("cursor", BIG, nullable=False),
        sa.PrimaryKeyConstraint("cluster", "cluster_epoch"),
    )
    op.create_table(
        "execution",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("project", sa.String(), nullable=False),
        sa.Column("domain", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("workflow", sa.String(), nullable=False),
        sa.Column("version", sa.String(), nullable=False),
        sa.Column("spec_digest", sa.String(), nullable=False),
        sa.Column("phase", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("region", sa.String(), nullable=False),
        sa.Column("cluster", sa.String(), nullable=False),
        sa.Column("mode", sa.String(), nullable=False),
        sa.Column("policy", sa.Text(), nullable=False),
        sa.Column("largest", sa.Text(), nullable=False),
        sa.Column("inputs", sa.Text(), nullable=False),
        sa.Column("outputs", sa.Text(), nullable=False),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("request_digest", sa.String(), nullable=False),
        sa.Column("traceparent", sa.String(), nullable=False),
        sa.Column("created_ns", BIG, nullable=False),
        sa.Column("started_ns", BIG, nullable=False),
        sa.Column("ended_ns", BIG, nullable=False),
        sa.Column("waiting_ns", BIG, nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_execution_created_ns", "execution", ["created_ns"], unique=False)
    op.create_index("ix_execution_phase", "execution", ["phase"], unique=False)
    op.create_index("ix_execution_project", "execution", ["project"], unique=False)
    op.create_table(
        "execution_fence",
        sa.Column("execution", sa.String(), nullable=False),
        sa.Column("epoch", BIG, nullable=False),
        sa.Column("owner_cluster", sa.String(), nullable=False),
        sa.Column("owner_cluster_epoch", BIG, nullable=False),
        sa.Column("decision_digest", sa.String(), nullable=False),
        sa.Column("released", sa.Integer(), nullable=False),
        sa.Column("terminal", sa.Boolean(), nullable=False),
        sa.Column("fenced_ns", BIG, nullable=False),
        sa.Column("key_epoch", BIG, nullable=False),
        sa.PrimaryKeyConstraint("execution"),
    )
    op.create_index(
        "ix_execution_fence_owner_cluster", "execution_fence", ["owner_cluster"], unique=False
    )
    op.create_table(
        "node_output",
        sa.Column("id", BIG, nullable=False),
        sa.Column("execution", sa.String(), nullable=False),
        sa.Column("node", sa.String(), nullable=False),
        sa.Column("epoch", BIG, nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("cluster", sa.String(), nullable=False),
        sa.Column("cluster_epoch", BIG, nullable=False),
        sa.Column("input_digest", sa.String(), nullable=False),
        sa.Column("output_digest", sa.String(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.Column("offloaded", sa.Text(), nullable=False),
        sa.Column("artifacts", sa.Text(), nullable=False),
        sa.Column("stdout", sa.Text(), nullable=False),
        sa.Column("stderr", sa.Text(), nullable=False),
        sa.Column("started_ns", BIG, nullable=False),
        sa.Column("ended_ns", BIG, nullable=False),
        sa.Column("live", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(
        "node_output_live",
        "node_output",
        ["execution", "node"],
        unique=True,
        sqlite_where=sa.text("live = 1"),
        postgresql_where=sa.text("live"),
    )
    op.create_table(
        "node_state",
        sa.Column("execution", sa.String(), nullable=False),
        sa.Column("node", sa.String(), nullable=False),
        sa.Column("phase", sa.String(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("epoch", BIG, nullable=False),
        sa.Column("cluster", sa.String(), nullable=False),
        sa.Column("started_ns", BIG, nullable=False),
        sa.Column("ended_ns", BIG, nullable=False),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("user_failures", sa.Integer(), nullable=False),
        sa.Column("system_failures", sa.Integer(), nullable=False),
        sa.Column("failed_attempt", sa.Integer(), nullable=False),
        sa.Column("lineage", sa.Text(), nullable=False),
        sa.Column("stdout", sa.Text(), nullable=False),
        sa.Column("stderr", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("execution", "node"),
    )
    op.create_table(
        "placement",
        sa.Column("execution", sa.String(), nullable=False),
        sa.Column("epoch", BIG, nullable=False),
        sa.Column("cluster", sa.String(), nullable=False),
        sa.Column("region", sa.String(), nullable=False),
        sa.Column("cause", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("verdicts", sa.Text(), nullable=False),
        sa.Column("decided_ns", BIG, nullable=False),
        sa.PrimaryKeyConstraint("execution", "epoch"),
    )
    op.create_table(
        "timeline",
        sa.Column("id", BIG, nullable=False),
        sa.Column("execution", sa.String(), nullable=False),
        sa.Column("at_ns", BIG, nullable=False),
        sa.Column("epoch", BIG, nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("cluster", sa.String(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_timeline_execution", "timeline", ["execution"], unique=False)
    op.create_table(
        "version",
        sa.Column("project", sa.String(), nullable=False),
        sa.Column("domain", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("version", sa.String(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("spec", sa.LargeBinary(), nullable=False),
        sa.Column("created_ns", BIG, nullable=False),
        sa.PrimaryKeyConstraint("project", "domain", "name", "version"),
    )
    op.create_index("ix_version_digest", "version", ["digest"], unique=False)
    op.create_table(
        "wakeup",
        sa.Column("id", BIG, nullable=False),
        sa.Column("execution", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("created_ns", BIG, nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
