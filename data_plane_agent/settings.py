"""Every setting of the agent: its unit, its default, and what too little and too much would do.

Read once by `__main__.py` from flags and WHIMBREL_AGENT_* variables; `whimbrel up` asks
`settings_check.py` before it starts an agent. `compute.py` makes the launcher's settings of it.
"""

import re
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from data_plane_agent.leaving import QUIESCE_SECONDS

PREFIX = "WHIMBREL_AGENT_"
OF_PROCESSES = frozenset({"slots", "cpu", "mem_bytes", "idle_seconds"})
OF_PODS = frozenset({
    "kubeconfig", "namespace", "image", "images", "secrets", "gpu_resource", "pod_template",
    "run_as", "default_cpu", "default_mem_bytes", "unschedulable_seconds", "image_seconds",
    "start_seconds", "linger_seconds", "grace_seconds", "lost_seconds", "creates_at_once",
    "api_qps", "api_burst", "url_hours", "store_endpoint", "store_key", "store_secret",
    "store_region", "peers", "door", "door_address", "warm_pods", "warm_idle_seconds",
})  # fmt: skip
"""Given for the other kind of compute they would do nothing: refused."""
_DOOR = re.compile(r".*:\d{1,5}")
_SECRET = re.compile(r"[a-z0-9]([-.a-z0-9]*[a-z0-9])?/[-._a-zA-Z0-9]+")


class PeerStore(BaseModel):
    """How another region's S3 store is reached, to read what was made there."""

    model_config = ConfigDict(extra="forbid")

    endpoint: str = ""
    key: str = ""
    secret: SecretStr = SecretStr("")
    region: str = "us-east-1"


class Settings(BaseSettings):
    """The agent: how a run is executed in one cluster. Every flag is also a variable
    WHIMBREL_AGENT_NAME, e.g. WHIMBREL_AGENT_REGION; lists and tables are JSON there."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, cli_kebab_case=True)

    cluster: str = Field(description="name under which the cluster is registered")
    region: str = Field(description="the cluster's region, as registered")
    router: str = Field(
        "127.0.0.1:8471", description="host:port of the routers, with commas; tried in turn"
    )
    store: str = Field(
        description="URL of the region's object store: file:///data/us-east/store, or "
        "s3://bucket/prefix, which pods need"
    )
    data_dir: Path = Field(
        description="folder for what survives a restart: outbox, specifications, code, workers"
    )
    compute: Literal["processes", "kubernetes"] = Field(
        "processes", description="tasks run as processes of this machine, or as pods of a cluster"
    )
    max_executions: int = Field(
        1000,
        ge=1,
        description="runs held at once; fewer leave compute idle between nodes, more cost memory",
    )
    orphan_seconds: float = Field(
        0.0,
        ge=0,
        description="processes: seconds a worker waits for an agent to come back (0 = 600); "
        "shorter loses work when one restarts slowly, longer leaves processes of one that never "
        "does. Pods: seconds between two looks for pods that nobody owns (0 = 60); shorter asks "
        "more often, longer lets them occupy the cluster",
    )
    trace_ratio: float = Field(
        1.0, ge=0, le=1, description="share of the nodes of a traced run that get spans"
    )
    kill_workers_at_stop: bool = Field(
        False,
        description="end running tasks (processes or pods) at SIGTERM instead of leaving them to "
        "the next agent",
    )
    quiesce_seconds: float = Field(
        QUIESCE_SECONDS,
        gt=0,
        description="seconds that tasks of a run that is to move get to save and to end; shorter "
        "loses what was not saved, longer holds up the move",
    )
    drain_seconds: float = Field(
        0.0,
        ge=0,
        description="at SIGTERM let go of every run, to be placed elsewhere, and end after at most "
        "so many seconds; 0 = runs are left to the next agent. Shorter than quiesce_seconds leaves "
        "some behind; a second SIGTERM ends at once",
    )
    autonomy_seconds: float = Field(
        0.0,
        ge=0,
        description="seconds that idempotent tasks are started without a session; 0 = for ever. "
        "Shorter stops a region that is cut off, longer does work that may be done elsewhere too",
    )
    http: str = Field("", description="host:port of /healthz /readyz /metrics; empty = off")
    otlp_endpoint: str = Field("", description="host:port for spans (OTLP, gRPC); empty = none")
    log_format: Literal["json", "text"] = Field("json", description="of the log on stderr")
    log_level: str = Field("info", description="debug, info, warning or error")

    # -- compute = processes ----------------------------------------------------------------------

    slots: int = Field(4, ge=1, description="tasks at once; more than cores compete for them")
    cpu: float = Field(
        0.0, ge=0, description="cores that requests of running tasks may add up to; 0 = slots"
    )
    mem_bytes: int = Field(
        0, ge=0, description="bytes that requests may add up to; 0 = the machine's memory"
    )
    idle_seconds: float = Field(
        300.0,
        ge=0,
        description="seconds until the warm workers of unused code end; shorter imports it again "
        "and again, longer keeps its memory",
    )

    # -- compute = kubernetes: the cluster --------------------------------------------------------

    kubeconfig: str = Field(
        "", description="file that says how the API server is reached; empty = this pod's own"
    )
    namespace: str = Field("whimbrel", min_length=1, description="where the pods of tasks are")
    image: str = Field(
        "",
        description="container image of tasks that name none, best by digest; it holds Python and "
        "whimbrel",
    )
    images: tuple[str, ...] = Field(
        (), description="globs of the images that tasks may name; empty = any"
    )
    secrets: dict[str, str] = Field(
        {},
        description='secrets that tasks may name, each as "SECRET/KEY" of the namespace, e.g. '
        '{"api-token": "team-secrets/token"}',
    )
    gpu_resource: str = Field("nvidia.com/gpu", description="resource that a task's gpu counts")
    pod_template: Path | None = Field(
        None, description="YAML that is merged into every pod: nodeSelector, tolerations, ..."
    )
    run_as: int = Field(1000, ge=1, description="user id of tasks; 0, root, is never allowed")
    default_cpu: float = Field(
        0.1,
        gt=0,
        description="cores requested for a task that does not say; less packs nodes too full, "
        "more leaves them idle",
    )
    default_mem_bytes: int = Field(
        256 * 1024 * 1024,
        gt=0,
        description="bytes requested for a task that does not say; less kills it, more wastes",
    )
    unschedulable_seconds: float = Field(
        120.0,
        gt=0,
        description="seconds a pod waits for room before its run is placed elsewhere; shorter "
        "sends away what a busy minute delays, longer waits while another cluster is free",
    )
    image_seconds: float = Field(
        300.0,
        gt=0,
        description="seconds an image may fail to arrive; shorter takes a slow registry for a "
        "wrong name, longer hides a wrong one",
    )
    start_seconds: float = Field(
        600.0,
        gt=0,
        description="seconds a pod may be on a node without starting before it is tried on another "
        "one; shorter takes a large image for a broken node, longer leaves runs on a broken one",
    )
    linger_seconds: float = Field(
        10.0,
        ge=0,
        description="seconds a finished pod stays to be looked at; longer keeps more of them in "
        "the API server",
    )
    grace_seconds: float = Field(
        30.0,
        gt=0,
        description="seconds from SIGTERM to SIGKILL; shorter than saving a checkpoint takes "
        "loses it, longer holds up a node's drain",
    )
    lost_seconds: float = Field(
        40.0,
        gt=0,
        description="seconds a node may be silent before its pods run elsewhere; shorter does "
        "work twice after a short silence, longer lets runs stand",
    )
    creates_at_once: int = Field(
        16, ge=1, description="pods being created at the same time; more press the API server"
    )
    api_qps: float = Field(
        50.0,
        gt=0,
        description="writes to the API server a second; fewer start pods later, more may be "
        "refused by its own limits",
    )
    api_burst: int = Field(100, ge=1, description="writes at once after a quiet time; see api_qps")

    # -- compute = kubernetes: warm pods (tasks that say warm=True) --------------------------------

    door: str = Field(
        "",
        description="host:port this agent listens on for warm pods, 0.0.0.0:8475 for instance; "
        "empty = each task gets a pod of its own",
    )
    door_address: str = Field(
        "",
        description="host that warm pods dial; empty = the address that this machine uses towards "
        "the API server",
    )
    warm_pods: int = Field(
        4,
        ge=0,
        description="pods of one pool (same code, project, domain, environment, image, secrets "
        "and resources); fewer make its tasks wait, more hold room when they are idle; 0 = none",
    )
    warm_idle_seconds: float = Field(
        300.0,
        gt=0,
        description="seconds until an idle warm pod ends; shorter starts pods again and again, "
        "longer holds their room",
    )

    # -- compute = kubernetes: the region's store -------------------------------------------------

    store_endpoint: str = Field("", description="URL of the S3 service; empty = AWS")
    store_key: str = Field("", description="access key of the store, one that lasts")
    store_secret: SecretStr = Field(SecretStr(""), description="secret of the access key")
    store_region: str = Field("us-east-1", description="the S3 service's own name of the region")
    peers: dict[str, PeerStore] = Field(
        {},
        description='other regions\' stores, read only: {"s3://bucket": {"endpoint": ..., "key": '
        '..., "secret": ..., "region": ...}}',
    )
    url_hours: float = Field(
        24.0,
        gt=0,
        le=168,
        description="life of a signed URL in hours; shorter makes long tasks ask again, longer "
        "keeps a stolen one useful (S3 allows 168)",
    )

    @model_validator(mode="after")
    def _fits_together(self) -> "Settings":
        pods = self.compute == "kubernetes"
        problems = self._problems_of_pods() if pods else []
        if stray := sorted(self.model_fields_set & (OF_PROCESSES if pods else OF_PODS)):
            other = "processes" if pods else "kubernetes"
            problems.append(f"{', '.join(stray)}: only with compute = {other}")
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _problems_of_pods(self) -> list[str]:
        found: list[str] = []
        if not self.image:
            found.append("image is missing: the container image that holds Python and whimbrel")
        if not self.store.startswith("s3://"):
            found.append(f"store {self.store} can't be reached by pods: it must be s3://BUCKET")
        if not self.store_key:
            found.append(
                "store_key is missing: URLs signed with an identity that the cloud lends die with "
                "it, long before url_hours; give a lasting key"
            )
        elif not self.store_secret.get_secret_value():
            found.append("store_key and store_secret go together: one of them is missing")
        if self.store_endpoint and not self.store_endpoint.startswith(("http://", "https://")):
            found.append(f"store_endpoint {self.store_endpoint} is no http:// or https:// URL")
        if self.door and not _DOOR.fullmatch(self.door):
            found.append(f"door {self.door} is not HOST:PORT")
        if self.kubeconfig and not Path(self.kubeconfig).is_file():
            found.append(f"kubeconfig {self.kubeconfig}: there is no such file")
        if self.pod_template is not None and not self.pod_template.is_file():
            found.append(f"pod_template {self.pod_template}: there is no such file")
        found += [
            f'secrets.{name}: "{where}" is not "SECRET/KEY"'
            for name, where in self.secrets.items()
            if not _SECRET.fullmatch(where)
        ]
        found += [
            f"peers: {url} is no s3:// URL" for url in self.peers if not url.startswith("s3://")
        ]
        return found

    @property
    def routers(self) -> list[str]:
        return [part.strip() for part in self.router.split(",") if part.strip()]


def problems(error: ValidationError) -> list[str]:
    """What is wrong, a line each; never a value that could be a secret's."""
    lines: list[str] = []
    for problem in error.errors():
        where = ".".join(str(part) for part in problem["loc"])
        said = problem["msg"].removeprefix("Value error, ")
        lines.append(f"{where}: {said}" if where else said)
    return lines
