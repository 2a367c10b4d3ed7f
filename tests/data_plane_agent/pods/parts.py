"""An S3 store in memory, and the orders of pods over it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from whimbrel.spec import Artifact, Interface, Resources, TaskSpec

from data_plane_agent.blobs import Blobs, StoreOptions
from data_plane_agent.launcher import Attempt, AttemptKey
from data_plane_agent.pods.orders import Orders
from tests.object_server import ObjectServer, object_server

KEY = AttemptKey("x", "n", 1, 2)
POD = "w-0123456789ab-n-1-2"


@dataclass
class Region:
    server: ObjectServer
    blobs: Blobs
    orders: Orders
    fetched: list[str]
    archive: Path
    now_ns: int = 0

    @property
    def options(self) -> StoreOptions:
        return StoreOptions(self.server.url, "key", "secret12")


def attempt(checkpoint: Artifact | None = None, **inputs: Any) -> Attempt:
    task = TaskSpec("n", "flow:f", "b" * 64, Interface())
    nothing = Resources()
    return Attempt(
        KEY, task, inputs, "digest", "p", "d", nothing, nothing, 60.0, "trace", checkpoint
    )


@contextmanager
def region(folder: Path, *, root: str = "s3://bucket/us east") -> Iterator[Region]:
    archive = folder / "bundle.tar"
    archive.write_bytes(b"the code")
    fetched: list[str] = []

    async def fetch(digest: str) -> Path:
        fetched.append(digest)
        return archive

    with object_server() as server:
        options = StoreOptions(server.url, "key", "secret12")
        blobs = Blobs(root, region="us-east", options=options)
        orders = Orders(blobs, cluster="alpha", fetch_archive=fetch, url_seconds=3600)
        yield Region(server, blobs, orders, fetched, archive)
