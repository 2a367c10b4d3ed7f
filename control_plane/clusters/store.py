"""Rows of clusters: registration, scheduling state, and the cluster epoch, one a session, that
only grows.
"""

from sqlalchemy import Text
from sqlmodel import Field, SQLModel

from control_plane.database import Big


class Cluster(SQLModel, table=True):
    name: str = Field(primary_key=True)
    region: str
    labels: str = Field(default="{}", sa_type=Text)
    scheduling: str = "active"
    cluster_epoch: int = Field(default=0, sa_type=Big)
    incarnation: str = ""
    registered_ns: int = Field(sa_type=Big)
