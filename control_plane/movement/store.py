"""What became of a cluster's loss: one row a lost session.

Written by `activities.py`; read by whoever asks what happened.
"""

from sqlalchemy import Text
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
