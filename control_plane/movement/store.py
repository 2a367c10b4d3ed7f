"""What became of a cluster's loss, of a planned move, and of a drain: a row a story.

Written by the steps of the stories; read by whoever asks what happened.
"""

from sqlalchemy import Index, Text
from sqlmodel import Field, SQLModel

from control_plane.database import Big


class FailoverSummary(SQLModel, table=True):
    """`taken` counts the rows fenced away, in the same transaction; `held` is why the takeover
    waits or waited, "" = it did not. `ended_ns` 0 = still at it."""

    __tablename__ = "failover_summary"  # pyright: ignore[reportAssignmentType]  # SQLModel types it as declared_attr

    cluster: str = Field(primary_key=True)
    cluster_epoch: int = Field(primary_key=True, sa_type=Big)
    held: str = Field(default="", sa_type=Text)
    taken: int = 0
    moved: int = 0
    waiting: int = 0
    started_ns: int = Field(default=0, sa_type=Big)
    ended_ns: int = Field(default=0, sa_type=Big)


class Migration(SQLModel, table=True):
    """One planned move. `number` counts an execution's from 1; `drain` is `cluster/number` of the
    drain that asked for it, "" = a person did; `wanted` the cluster asked for, "" = any other one;
    `phase` and the times are as `Migration` of the wire; `ended_ns` 0 = under way."""

    execution: str = Field(primary_key=True)
    number: int = Field(primary_key=True, sa_type=Big)
    cause: str
    drain: str = ""
    from_cluster: str
    from_epoch: int = Field(sa_type=Big)
    wanted: str = ""
    to_cluster: str = ""
    phase: str = "PREPARE"
    reason: str = ""
    why: str = Field(default="", sa_type=Text)
    requested_ns: int = Field(sa_type=Big)
    quiesced_ns: int = Field(default=0, sa_type=Big)
    released_ns: int = Field(default=0, sa_type=Big)
    claimed_ns: int = Field(default=0, sa_type=Big)
    resumed_ns: int = Field(default=0, sa_type=Big)
    ended_ns: int = Field(default=0, sa_type=Big)

    __table_args__ = (Index("migration_open", "ended_ns"),)


class Drain(SQLModel, table=True):
    """One emptying of a cluster. `phase` RUNNING, DONE or CANCELLED (it was uncordoned)."""

    cluster: str = Field(primary_key=True)
    number: int = Field(primary_key=True, sa_type=Big)
    phase: str = "RUNNING"
    total: int = Field(default=0, sa_type=Big)
    started_ns: int = Field(sa_type=Big)
    ended_ns: int = Field(default=0, sa_type=Big)
