"""Rows of the registry: immutable versions, and which bundles are there."""

from sqlalchemy import LargeBinary
from sqlmodel import Field, SQLModel

from control_plane.database import Big


class Version(SQLModel, table=True):
    """`spec` is the wire form of the WorkflowSpec, `digest` the one of its canonical JSON."""

    project: str = Field(primary_key=True)
    domain: str = Field(primary_key=True)
    name: str = Field(primary_key=True)
    version: str = Field(primary_key=True)
    digest: str = Field(index=True)
    spec: bytes = Field(sa_type=LargeBinary)
    created_ns: int = Field(sa_type=Big)


class Bundle(SQLModel, table=True):
    digest: str = Field(primary_key=True)
    bytes: int = Field(sa_type=Big)
    created_ns: int = Field(sa_type=Big)
