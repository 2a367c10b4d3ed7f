"""Real clusters for the tests, started once a session: `alpha` with two nodes, `beta` with one.

Without Linux, root, Go and containerd these tests are skipped in one line; where WHIMBREL_REQUIRE
names "kubernetes" they fail instead.
"""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.e2e.checker import check
from tests.e2e.federation import Federation
from tests.e2e.kubernetes.cluster import Cluster
from tests.e2e.kubernetes.gates import Gates, serve_gates
from tests.e2e.kubernetes.network import GATEWAY
from tests.e2e.kubernetes.runs import Cloud
from tests.e2e.kubernetes.settings import up_options
from tests.e2e.kubernetes.state import Say, locked, why_not

NODES = {"alpha": 2, "beta": 1}
IMPATIENT = {
    "lost_seconds": "8", "image_seconds": "10", "unschedulable_seconds": "15",
    "linger_seconds": "1", "grace_seconds": "10", "orphan_seconds": "10",
    "door": f"{GATEWAY}:0", "warm_idle_seconds": "20",
}  # fmt: skip
"""Agents' settings: what takes minutes in production is over soon enough for a test."""


@pytest.fixture(scope="session")
def machine(pytestconfig: pytest.Config) -> Iterator[Say]:
    """This machine can run clusters, and until the end no other test run does."""
    if missing := why_not():
        if "kubernetes" in os.environ.get("WHIMBREL_REQUIRE", ""):
            pytest.fail(missing)
        pytest.skip(missing)
    capture: Any = pytestconfig.pluginmanager.getplugin("capturemanager")

    def say(line: str) -> None:
        """Past pytest's capture: the first build takes minutes, and nobody should wonder."""
        with capture.global_and_fixture_disabled():
            os.write(2, f"\n{line}".encode())

    with locked("tests", waiting=say):
        yield say


@pytest.fixture(scope="session")
def clusters(machine: Say) -> Iterator[dict[str, Cluster]]:
    started = {name: Cluster(name, say=machine) for name in NODES}
    try:
        with ThreadPoolExecutor(len(started)) as pool:
            ups = [pool.submit(started[name].up, nodes=count) for name, count in NODES.items()]
        for up in ups:
            up.result()
        yield started
    finally:
        for cluster in started.values():
            cluster.down()


@pytest.fixture(scope="session")
def gates(clusters: dict[str, Cluster]) -> Iterator[Gates]:
    """The bridge it listens on is there for as long as a cluster is."""
    with serve_gates(GATEWAY) as served:
        yield served


@pytest.fixture(scope="session")
def shared_cloud(
    clusters: dict[str, Cluster], gates: Gates, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cloud]:
    folder = tmp_path_factory.mktemp("cloud")
    fuse = folder / "fuse"
    fuse.touch()  # nothing crashes until a test takes it away
    federation = Federation(
        folder,
        environment={
            "WHIMBREL_CRASH_AT": "pods.after_create", "WHIMBREL_CRASH_ONCE": str(fuse),
        },
        options=["--preset", "lan", *up_options(list(clusters.values()), **IMPATIENT)],
    )  # fmt: skip
    federation.start()
    yield Cloud(federation, gates, fuse)
    federation.stop()


@pytest.fixture
def cloud(shared_cloud: Cloud) -> Iterator[Cloud]:
    """Its regions are the clusters; every region made whole and the history checked at the end."""
    yield shared_cloud
    shared_cloud.cancel_all()
    for region in NODES:
        shared_cloud.federation.sandbox_command("heal", region)
    with shared_cloud.federation.database() as database:
        check(database)
