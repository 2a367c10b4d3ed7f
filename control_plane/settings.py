"""Every setting of the control plane: its unit, its default, what too little and too much would
do.

Read once by `__main__.py` from flags and WHIMBREL_CONTROL_PLANE_* variables.
"""

from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict
from sqlalchemy.engine import make_url


class Settings(BaseSettings):
    """What was asked for, and what has happened. Every flag is also a variable: --database-url is
    WHIMBREL_CONTROL_PLANE_DATABASE_URL."""

    model_config = SettingsConfigDict(
        env_prefix="WHIMBREL_CONTROL_PLANE_",
        cli_prog_name="python -m control_plane",
        cli_kebab_case=True,
    )

    listen: str = Field(
        default="127.0.0.1:8470", description="host:port for users and the router (gRPC)"
    )
    database_url: str = Field(
        default="sqlite+aiosqlite:///whimbrel-data/control-plane.db",
        description="sqlite+aiosqlite:///FILE or postgresql+asyncpg://USER:PASSWORD@HOST/NAME",
    )
    router: str = Field(
        default="127.0.0.1:8471", description="host:port of the router, several with commas"
    )
    temporal: str = Field(
        default="", description="host:port of Temporal; empty = nothing moves when a region is lost"
    )
    bundle_store: str = Field(
        default="",
        description="URL of the store for code; empty = a folder by the database",
    )
    region: str = Field(
        default="",
        description="region in which this control plane keeps what it is told: values, error texts "
        "and logs of runs whose data may not lie there stay where they are made; empty = it may be "
        "told everything",
    )
    claim_timeout_seconds: float = Field(
        default=15.0,
        gt=0,
        description="seconds an agent has to claim an assignment before it is placed anew; shorter "
        "moves work from a busy agent, longer leaves it with one that won't",
    )
    no_room_seconds: float = Field(
        default=300.0,
        ge=0,
        description="seconds a run is kept away from a cluster that let go of it for want of room, "
        "while another one takes it; shorter sends it back into the same queue, longer leaves a "
        "cluster unused that has room again",
    )
    exclusive_margin_seconds: float = Field(
        default=1.0,
        ge=0,
        description="seconds beyond a session's TTL that an exclusive run is kept from its next "
        "owner, for the clocks' error and a kill; shorter may run it twice at once, longer delays "
        "its takeover",
    )
    hold_max_seconds: float = Field(
        default=300.0,
        ge=0,
        description="seconds a failover is held while most clusters seem gone; shorter moves "
        "everything because of an outage of our own, longer leaves runs of a real one standing",
    )
    failover_batch: int = Field(
        default=100, ge=1, description="executions moved in one step of a failover"
    )
    failover_rate: float = Field(
        default=200.0, gt=0, description="executions a second that a failover moves at most"
    )
    migrate_quiesce_seconds: float = Field(
        default=60.0,
        gt=0,
        description="seconds that a cluster has to save and let go of an idempotent run that "
        "migrates; shorter throws away what it has computed since its last checkpoint, longer "
        "lets a mute agent delay the move",
    )
    drain_at_once: int = Field(
        default=16,
        ge=1,
        description="runs that migrate at the same time when a cluster is drained; more empties "
        "it sooner and crowds the others",
    )
    keep_traces: bool = Field(
        default=False, description="collect spans (OTLP on the same port) and keep them in a file"
    )
    traces_file: str = Field(
        default="", description="SQLite file of kept spans; empty = traces.db by the database"
    )
    stop_seconds: float = Field(
        default=2.0, ge=0, description="seconds that running calls get when the server is stopped"
    )
    http: str = Field(default="", description="host:port of /healthz /readyz /metrics; empty = off")
    otlp_endpoint: str = Field(
        default="", description="host:port for spans (OTLP, gRPC); empty = none"
    )
    log_format: Literal["json", "text"] = Field(default="json", description="of the log on stderr")
    log_level: str = Field(default="info", description="debug, info, warning or error")

    @property
    def folder(self) -> Path:
        """Where files belong that no other setting places."""
        url = make_url(self.database_url)
        if url.get_backend_name() == "sqlite" and url.database:
            return Path(url.database).resolve().parent
        return Path("whimbrel-data").resolve()

    @property
    def bundles(self) -> str:
        return self.bundle_store or (self.folder / "bundles").as_uri()

    @property
    def traces(self) -> Path:
        return Path(self.traces_file) if self.traces_file else self.folder / "traces.db"
