"""Which launcher runs this agent's tasks: processes of this machine, or pods of a cluster.

Part of the composition root: called by `__main__` with the settings; hands it something that starts
tasks and has the region's store. The Kubernetes client is imported only by who drives a cluster.
"""

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from data_plane_agent.blobs import Blobs, StoreOptions
from data_plane_agent.launcher import Launcher, Renewal
from data_plane_agent.pods.settings import PodSettings
from data_plane_agent.processes.launcher import ProcessLauncher
from data_plane_agent.processes.settings import ProcessSettings
from data_plane_agent.settings import Settings
from data_plane_agent.warm.settings import WarmSettings, own_address

FetchBundle = Callable[[str], Awaitable[Path]]
WORKER_ORPHAN_SECONDS, POD_ORPHAN_SECONDS = 600.0, 60.0
"""For `orphan_seconds` = 0, see there."""


class Compute(Launcher, Protocol):
    """A launcher with a life: `open` before anything else; `close(kill=False)` leaves the work to
    the next agent."""

    @property
    def blobs(self) -> Blobs: ...
    async def open(self) -> None: ...
    async def close(self, *, kill: bool) -> None: ...


async def connect(
    settings: Settings, *, fetch_bundle: FetchBundle, renewal: Renewal | None = None
) -> Compute:
    """Raises InvalidInput for what files say that settings name; asks nobody yet. Without a
    `renewal` nothing exclusive starts."""
    match settings.compute:
        case "processes":
            return _processes(settings, fetch_bundle=fetch_bundle, renewal=renewal)
        case "kubernetes":
            return await _pods(settings, fetch_bundle=fetch_bundle, renewal=renewal)


def _processes(
    settings: Settings, *, fetch_bundle: FetchBundle, renewal: Renewal | None
) -> Compute:
    return ProcessLauncher(
        ProcessSettings(
            data_dir=settings.data_dir,
            store=settings.store,
            region=settings.region,
            slots=settings.slots,
            cpu=settings.cpu,
            mem_bytes=settings.mem_bytes,
            idle_seconds=settings.idle_seconds,
            orphan_seconds=settings.orphan_seconds or WORKER_ORPHAN_SECONDS,
        ),
        fetch_bundle=fetch_bundle,
        renewal=renewal,
    )


async def _pods(
    settings: Settings, *, fetch_bundle: FetchBundle, renewal: Renewal | None
) -> Compute:
    from data_plane_agent.pods import template
    from data_plane_agent.pods.api import PodApi
    from data_plane_agent.pods.launcher import PodLauncher
    from data_plane_agent.pods.orders import Orders

    template = template.load(settings.pod_template) if settings.pod_template else {}
    blobs = store_of(settings)
    orders = Orders(
        blobs,
        cluster=settings.cluster,
        fetch_archive=fetch_bundle,
        url_seconds=settings.url_hours * 3600,
        grace_seconds=settings.grace_seconds,
    )
    api = await PodApi.connect(
        kubeconfig=settings.kubeconfig,
        namespace=settings.namespace,
        qps=settings.api_qps,
        burst=settings.api_burst,
    )
    about = pod_settings(settings, template=template)
    single = PodLauncher(api, orders, blobs, about, data_dir=settings.data_dir, renewal=renewal)
    if not settings.door or not settings.warm_pods:
        return single
    from data_plane_agent.warm.pods import ClusterPods
    from data_plane_agent.warm.pools import WarmPools
    from data_plane_agent.warm.routing import WarmLauncher

    known = warm_settings(settings, server=api.server)
    pods = ClusterPods(api, about, address=known.address, orphan_seconds=known.orphan_seconds)
    return WarmLauncher(single, WarmPools(pods, orders, known, fall_back=single.start))


def store_of(settings: Settings) -> Blobs:
    """The region's S3 store, and those of its peers to read."""
    return Blobs(
        settings.store,
        region=settings.region,
        options=StoreOptions(
            settings.store_endpoint,
            settings.store_key,
            settings.store_secret.get_secret_value(),
            settings.store_region,
        ),
        peers={
            url: StoreOptions(peer.endpoint, peer.key, peer.secret.get_secret_value(), peer.region)
            for url, peer in settings.peers.items()
        },
    )


def pod_settings(settings: Settings, *, template: Mapping[str, Any]) -> PodSettings:
    return PodSettings(
        cluster=settings.cluster,
        region=settings.region,
        namespace=settings.namespace,
        image=settings.image,
        images=settings.images,
        secrets=settings.secrets,
        gpu_resource=settings.gpu_resource,
        template=template,
        run_as=settings.run_as,
        default_cpu=settings.default_cpu,
        default_mem_bytes=settings.default_mem_bytes,
        unschedulable_seconds=settings.unschedulable_seconds,
        image_seconds=settings.image_seconds,
        start_seconds=settings.start_seconds,
        linger_seconds=settings.linger_seconds,
        grace_seconds=settings.grace_seconds,
        orphan_seconds=settings.orphan_seconds or POD_ORPHAN_SECONDS,
        lost_seconds=settings.lost_seconds,
        creates_at_once=settings.creates_at_once,
    )


def warm_settings(settings: Settings, *, server: str) -> WarmSettings:
    """`server` is the API server's URL. InvalidInput when no address of this machine is found."""
    host, _, port = settings.door.rpartition(":")
    return WarmSettings(
        host=host.strip("[]"),
        port=int(port),
        address=settings.door_address or own_address(server),
        region=settings.region,
        most=settings.warm_pods,
        idle_seconds=settings.warm_idle_seconds,
        lost_seconds=settings.lost_seconds,
        grace_seconds=settings.grace_seconds,
        orphan_seconds=WORKER_ORPHAN_SECONDS,
    )
