"""Rows of runs as people know them: what was asked for, where it was placed and why, and its own
story.

Written by `service.py`, `dispatch.py` and the ledger; the row's phase never says who may write,
the fence does.
"""

from sqlalchemy import Boolean, Index, Integer, Text, text
from sqlmodel import Field, SQLModel

from control_plane.database import Big


class Execution(SQLModel, table=True):
    """One run. `id` is project/domain/name; `policy`, `largest`, `error` and values are JSON text.
    `waiting_ns` is since when it waits for a place, 0 = something of it has run since; an owner
    that has no room for it does not end the waiting. `images` and `secrets` are JSON lists of
    what its nodes name; `no_room` maps a cluster that let go of it, for want of room, to when;
    `replicating`: some of what it made may still lack a copy that its policy asks for; of two runs
    the one with the higher `priority` comes first."""

    __table_args__ = (
        Index(
            "execution_replicating",
            "id",
            sqlite_where=text("replicating = 1"),
            postgresql_where=text("replicating"),
        ),
    )

    id: str = Field(primary_key=True)
    project: str = Field(index=True)
    domain: str
    name: str
    workflow: str
    version: str
    spec_digest: str
    phase: str = Field(index=True)
    reason: str = ""
    region: str = ""
    cluster: str = ""
    mode: str
    policy: str = Field(sa_type=Text)
    largest: str = Field(sa_type=Text)
    inputs: str = Field(sa_type=Text)
    outputs: str = Field(default="", sa_type=Text)
    error: str = Field(default="", sa_type=Text)
    request_digest: str
    traceparent: str = ""
    created_ns: int = Field(sa_type=Big, index=True)
    started_ns: int = Field(default=0, sa_type=Big)
    ended_ns: int = Field(default=0, sa_type=Big)
    waiting_ns: int = Field(default=0, sa_type=Big)
    images: str = Field(default="", sa_type=Text)
    secrets: str = Field(default="", sa_type=Text)
    no_room: str = Field(default="", sa_type=Text)
    replicating: bool = Field(default=False, sa_type=Boolean)
    priority: int = Field(default=0, sa_type=Integer)


class Placement(SQLModel, table=True):
    """One decision of the router, stored whole."""

    execution: str = Field(primary_key=True)
    epoch: int = Field(primary_key=True, sa_type=Big)
    cluster: str
    region: str = ""
    cause: str
    reason: str = ""
    verdicts: str = Field(sa_type=Text)
    decided_ns: int = Field(sa_type=Big)


class Timeline(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True, sa_type=Big)
    execution: str = Field(index=True)
    at_ns: int = Field(sa_type=Big)
    epoch: int = Field(sa_type=Big)
    kind: str
    cluster: str = ""
    text: str = Field(default="", sa_type=Text)
