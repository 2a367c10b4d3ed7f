"""Rows of the ledger: who may write, and what was written.

Written by `fence.py` and `commit.py` in one transaction each; read by the claim, by dispatch and
by whoever shows a run. JSON documents are text: the database only keeps them.
"""

from sqlalchemy import Boolean, Index, Text, text
from sqlmodel import Field, SQLModel

from control_plane.database import Big


class ExecutionFence(SQLModel, table=True):
    """The only authority on who may write. `owner_cluster` "" = nobody.

    `owner_cluster_epoch` 0 = not claimed; `fenced_ns` is when the epoch last rose; `key_epoch` the
    epoch of an assignment key that may stand in etcd, 0 = none. `want` and `gate` are what its key
    is to say at this epoch: `quiesce` while a planned move waits for its owner to let go.
    """

    __tablename__ = "execution_fence"  # pyright: ignore[reportAssignmentType]  # SQLModel types it as declared_attr

    execution: str = Field(primary_key=True)
    epoch: int = Field(sa_type=Big)
    owner_cluster: str = Field(default="", index=True)
    owner_cluster_epoch: int = Field(default=0, sa_type=Big)
    decision_digest: str = ""
    released: int = 0
    terminal: bool = Field(default=False, sa_type=Boolean)
    fenced_ns: int = Field(default=0, sa_type=Big)
    key_epoch: int = Field(default=0, sa_type=Big)
    want: str = Field(default="run", sa_type=Text)
    gate: int = Field(default=0, sa_type=Big)


class NodeOutput(SQLModel, table=True):
    """What a node made. At most one row of a node is live; the others are history. `value` "" =
    `offloaded`."""

    __tablename__ = "node_output"  # pyright: ignore[reportAssignmentType]  # SQLModel types it as declared_attr
    __table_args__ = (
        Index(
            "node_output_live",
            "execution",
            "node",
            unique=True,
            sqlite_where=text("live = 1"),
            postgresql_where=text("live"),
        ),
    )

    id: int | None = Field(default=None, primary_key=True, sa_type=Big)
    execution: str
    node: str
    epoch: int = Field(sa_type=Big)
    attempt: int
    cluster: str
    cluster_epoch: int = Field(sa_type=Big)
    input_digest: str
    output_digest: str
    value: str = Field(sa_type=Text)
    offloaded: str = Field(default="", sa_type=Text)
    artifacts: str = Field(default="[]", sa_type=Text)
    stdout: str = Field(default="", sa_type=Text)
    stderr: str = Field(default="", sa_type=Text)
    started_ns: int = Field(default=0, sa_type=Big)
    ended_ns: int = Field(default=0, sa_type=Big)
    host: str = Field(default="", sa_type=Text)
    live: bool = Field(default=True, sa_type=Boolean)


class NodeState(SQLModel, table=True):
    """Newest news of a node without a live output. `failed_attempt` is the last attempt counted as
    a failure; `host` is where the attempt ran, `avoided` a JSON list of where it was not to."""

    __tablename__ = "node_state"  # pyright: ignore[reportAssignmentType]  # SQLModel types it as declared_attr

    execution: str = Field(primary_key=True)
    node: str = Field(primary_key=True)
    phase: str = "QUEUED"
    attempt: int = 0
    epoch: int = Field(default=0, sa_type=Big)
    cluster: str = ""
    started_ns: int = Field(default=0, sa_type=Big)
    ended_ns: int = Field(default=0, sa_type=Big)
    error: str = Field(default="", sa_type=Text)
    user_failures: int = 0
    system_failures: int = 0
    failed_attempt: int = 0
    lineage: str = Field(default="", sa_type=Text)
    stdout: str = Field(default="", sa_type=Text)
    stderr: str = Field(default="", sa_type=Text)
    host: str = Field(default="", sa_type=Text)
    avoided: str = Field(default="", sa_type=Text)


class Checkpoint(SQLModel, table=True):
    """Newest checkpoint of a node."""

    execution: str = Field(primary_key=True)
    node: str = Field(primary_key=True)
    attempt: int
    epoch: int = Field(sa_type=Big)
    artifact: str = Field(sa_type=Text)
    at_ns: int = Field(sa_type=Big)


class Replica(SQLModel, table=True):
    """A copy, as JSON in `copied`, of the artifact at `uri` in another region. `chosen`: it is read
    in place of the original, which nobody can reach."""

    execution: str = Field(primary_key=True)
    uri: str = Field(primary_key=True, sa_type=Text)
    region: str = Field(primary_key=True)
    copied: str = Field(sa_type=Text)
    chosen: bool = Field(default=False, sa_type=Boolean)
    at_ns: int = Field(default=0, sa_type=Big)


class EventCursor(SQLModel, table=True):
    """Number of the last settled event of one session; its row is made when the session opens."""

    __tablename__ = "event_cursor"  # pyright: ignore[reportAssignmentType]  # SQLModel types it as declared_attr

    cluster: str = Field(primary_key=True)
    cluster_epoch: int = Field(primary_key=True, sa_type=Big)
    cursor: int = Field(default=0, sa_type=Big)


class Wakeup(SQLModel, table=True):
    """Something happened that somebody waits for; deleted after delivery. A hint: the fact is in
    the other rows."""

    id: int | None = Field(default=None, primary_key=True, sa_type=Big)
    execution: str
    kind: str
    created_ns: int = Field(sa_type=Big)
