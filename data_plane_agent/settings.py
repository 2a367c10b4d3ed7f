"""Every setting of the agent: its unit, its default, and what too little and too much would do.

Read once by `__main__.py` from flags and WHIMBREL_AGENT_* variables.
"""

from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """The agent: how a run is executed in one cluster. Every flag is also a variable
    WHIMBREL_AGENT_NAME, e.g. WHIMBREL_AGENT_REGION."""

    model_config = SettingsConfigDict(env_prefix="WHIMBREL_AGENT_", cli_kebab_case=True)

    cluster: str = Field(description="name under which the cluster is registered")
    region: str = Field(description="the cluster's region, as registered")
    router: str = Field(
        "127.0.0.1:8471", description="host:port of the routers, with commas; tried in turn"
    )
    store: str = Field(
        description="URL of the region's object store, e.g. file:///data/us-east/store"
    )
    data_dir: Path = Field(
        description="folder for what survives a restart: outbox, specifications, code, workers"
    )
    slots: int = Field(4, ge=1, description="tasks at once; more than cores compete for them")
    cpu: float = Field(
        0.0, ge=0, description="cores that requests of running tasks may add up to; 0 = slots"
    )
    mem_bytes: int = Field(
        0, ge=0, description="bytes that requests may add up to; 0 = the machine's memory"
    )
    max_executions: int = Field(
        1000,
        ge=1,
        description="runs held at once; fewer leave slots idle between nodes, more cost memory",
    )
    idle_seconds: float = Field(
        300.0,
        ge=0,
        description="seconds until the warm workers of unused code end; shorter imports it again "
        "and again, longer keeps its memory",
    )
    orphan_seconds: float = Field(
        600.0,
        gt=0,
        description="seconds a worker waits for an agent to come back; shorter loses work when "
        "one restarts slowly, longer leaves processes of one that never does",
    )
    trace_ratio: float = Field(
        1.0, ge=0, le=1, description="share of the nodes of a traced run that get spans"
    )
    kill_workers_at_stop: bool = Field(
        False, description="end running tasks at SIGTERM instead of leaving them to the next agent"
    )
    http: str = Field("", description="host:port of /healthz /readyz /metrics; empty = off")
    otlp_endpoint: str = Field("", description="host:port for spans (OTLP, gRPC); empty = none")
    log_format: Literal["json", "text"] = Field("json", description="of the log on stderr")
    log_level: str = Field("info", description="debug, info, warning or error")

    @property
    def routers(self) -> list[str]:
        return [part.strip() for part in self.router.split(",") if part.strip()]
