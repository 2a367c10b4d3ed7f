"""Fixtures of the faults: federations in a network of their own."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.checker import check
from tests.e2e.faults.network import Network, missing, network
from tests.e2e.federation import Federation


@pytest.fixture(scope="session")
def apart(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Federation, Network]]:
    if why := missing():
        pytest.skip(f"a network of its own: {why}")
    folder: Path = tmp_path_factory.mktemp("apart")
    with network(f"whimbrel-{os.getpid()}") as made:
        federation = Federation(folder, routers=2, inside=made.inside, preset="lan")
        federation.start()
        try:
            yield federation, made
        finally:
            federation.stop()


@pytest.fixture
def linked(apart: tuple[Federation, Network]) -> Iterator[tuple[Federation, Network]]:
    """A federation whose links can be hurt; every one is well again afterwards, and the history is
    checked."""
    federation, made = apart
    yield federation, made
    made.heal()
    for region in federation.sandbox["regions"]:
        federation.sandbox_command("heal", region)
    with federation.database() as database:
        check(database)
