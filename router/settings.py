"""Every setting of the router: its unit, its default, and what too little and too much would do.

Read once by `__main__.py` from flags and WHIMBREL_ROUTER_* variables.
"""

from typing import Literal, Self

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from router.returns import Terms


class Settings(BaseSettings):
    """Who is alive, and who gets it. Every flag is also a variable: --ttl-seconds is
    WHIMBREL_ROUTER_TTL_SECONDS."""

    model_config = SettingsConfigDict(
        env_prefix="WHIMBREL_ROUTER_", cli_prog_name="python -m router", cli_kebab_case=True
    )

    listen: str = Field(
        default="127.0.0.1:8471", description="host:port for agents and the control plane"
    )
    advertise: str = Field(
        default="", description="host:port where other replicas reach this one; empty = `listen`"
    )
    etcd: str = Field(
        default="127.0.0.1:2379", description="host:port of etcd, several with commas"
    )
    etcd_namespace: str = Field(
        default="",
        description="goes before every key; every replica needs the same, e.g. /whimbrel",
    )
    control_plane: str = Field(
        default="127.0.0.1:8470", description="host:port of the control plane"
    )
    name: str = Field(default="router", description="of this replica, in logs and spans")
    ttl_seconds: int = Field(
        default=10,
        ge=2,
        description="seconds (whole, etcd's floor is 2) without a heartbeat until an agent's "
        "session is over; shorter finds losses sooner and takes a slow link for one",
    )
    heartbeat_seconds: float = Field(
        default=2.0,
        gt=0,
        description="seconds between an agent's heartbeats; at most a third of the TTL, so that "
        "a lost one is no lost session",
    )
    stall_seconds: float = Field(
        default=60.0,
        gt=0,
        description="seconds in which an agent's engine may have work and decide nothing before "
        "it counts as lost; shorter fails over a busy machine, longer leaves work with a stuck one",
    )
    quarantine_seconds: float | None = Field(
        default=None,
        ge=0,
        description="seconds in which a cluster that was lost and is back gets no new work while "
        "another takes it; unset = 3 TTL; shorter trusts a link that may go again at once, longer "
        "leaves a healthy region idle; 0 = none",
    )
    ramp_seconds: float | None = Field(
        default=None,
        ge=0,
        description="seconds after the quarantine in which its share of the new work grows to all "
        "of it; unset = 6 TTL; shorter sends a herd to a cold region; 0 = all of it at once",
    )
    flap_losses: int = Field(
        default=3,
        ge=1,
        description="losses within flap_window_seconds from which on each one doubles the "
        "quarantine; fewer punish bad luck, more give a flapping link new work each time",
    )
    flap_window_seconds: float = Field(
        default=600.0,
        gt=0,
        description="seconds for which a loss counts; shorter forgets a slow flapping, longer "
        "remembers what was mended",
    )
    quarantine_most_seconds: float = Field(
        default=600.0,
        ge=0,
        description="seconds of quarantine at most, however often it was lost; shorter gives a "
        "flapping link more, longer keeps a mended region idle",
    )
    etcd_timeout_seconds: float = Field(
        default=2.0, gt=0, description="seconds for one call to etcd; longer hides an outage of it"
    )
    control_plane_timeout_seconds: float = Field(
        default=5.0, gt=0, description="seconds for the router's own calls to the control plane"
    )
    stop_seconds: float = Field(
        default=2.0, ge=0, description="seconds that running calls get when the router is stopped"
    )
    http: str = Field(default="", description="host:port of /healthz /readyz /metrics; empty = off")
    otlp_endpoint: str = Field(
        default="", description="host:port for spans (OTLP, gRPC); empty = none"
    )
    log_format: Literal["json", "text"] = Field(default="json", description="of the log on stderr")
    log_level: str = Field(default="info", description="debug, info, warning or error")

    @model_validator(mode="after")
    def _heartbeats_fit(self) -> Self:
        if self.heartbeat_seconds * 3 > self.ttl_seconds:
            raise ValueError(
                f"heartbeat_seconds {self.heartbeat_seconds:g} is more than a third of "
                f"ttl_seconds {self.ttl_seconds}: one lost heartbeat would end a session"
            )
        return self

    @property
    def fail_back(self) -> Terms:
        quarantine, ramp = self.quarantine_seconds, self.ramp_seconds
        return Terms(
            quarantine=3.0 * self.ttl_seconds if quarantine is None else quarantine,
            ramp=6.0 * self.ttl_seconds if ramp is None else ramp,
            flap_losses=self.flap_losses,
            flap_window=self.flap_window_seconds,
            longest=self.quarantine_most_seconds,
        )

    @property
    def gateway(self) -> str:
        return self.advertise or self.listen

    @property
    def etcd_endpoints(self) -> list[str]:
        return [part.strip() for part in self.etcd.split(",") if part.strip()]
