"""Which launcher runs this agent's tasks: processes of this machine, or pods of a cluster.

Part of the composition root: called by `__main__` with the settings; hands it something that starts
tasks and has the region's store. The Kubernetes client is imported only by who drives a cluster.
"""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol

from whimbrel.errors import Refused

from data_plane_agent.blobs import Blobs
from data_plane_agent.launcher import Launcher
from data_plane_agent.process_settings import ProcessSettings
from data_plane_agent.processes import ProcessLauncher
from data_plane_agent.settings import Settings

FetchBundle = Callable[[str], Awaitable[Path]]
WORKER_ORPHAN_SECONDS = 600.0


class Compute(Launcher, Protocol):
    """A launcher with a life: `open` before anything else; `close(kill=False)` leaves the work to
    the next agent."""

    @property
    def blobs(self) -> Blobs: ...
    async def open(self) -> None: ...
    async def close(self, *, kill: bool) -> None: ...


async def connect(settings: Settings, *, fetch_bundle: FetchBundle) -> Compute:
    """Raises Refused, with what to do, when it can't be driven as the settings say."""
    match settings.compute:
        case "processes":
            return _processes(settings, fetch_bundle=fetch_bundle)
        case "kubernetes":
            raise Refused("this version of the agent can't drive Kubernetes yet")


def _processes(settings: Settings, *, fetch_bundle: FetchBundle) -> Compute:
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
    )
