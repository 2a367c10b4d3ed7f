"""Real clusters for the tests, started once a session: `alpha` with two nodes, `beta` with one.

Without Linux, root, Go and containerd these tests are skipped in one line; where WHIMBREL_REQUIRE
names "kubernetes" they fail instead.
"""

import os
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.checker import check
from tests.e2e.kubernetes.cluster import Cluster, running
from tests.e2e.kubernetes.gates import Gates, serve_gates
from tests.e2e.kubernetes.network import GATEWAY
from tests.e2e.kubernetes.runs import Cloud, opened
from tests.e2e.kubernetes.state import Say, locked, why_not

NODES = {"alpha": 2, "beta": 1}


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
    with running(NODES, say=machine) as started:
        yield started


@pytest.fixture(scope="session")
def gates(clusters: dict[str, Cluster]) -> Iterator[Gates]:
    """The bridge it listens on is there for as long as a cluster is."""
    with serve_gates(GATEWAY) as served:
        yield served


@pytest.fixture(scope="session")
def shared_cloud(
    clusters: dict[str, Cluster], gates: Gates, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cloud]:
    with opened(tmp_path_factory.mktemp("cloud"), clusters, gates) as cloud:
        yield cloud


@pytest.fixture
def cloud(shared_cloud: Cloud) -> Iterator[Cloud]:
    """Its regions are the clusters; every region made whole and the history checked at the end."""
    yield shared_cloud
    shared_cloud.cancel_all()
    for region in NODES:
        shared_cloud.federation.sandbox_command("heal", region)
    with shared_cloud.federation.database() as database:
        check(database)
