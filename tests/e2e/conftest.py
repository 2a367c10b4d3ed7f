"""Fixtures of the end-to-end tests: one federation for all that leave it whole,
a fresh one for those that do not.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.checker import check
from tests.e2e.federation import Federation


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.e2e)


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    federation = Federation(tmp_path_factory.mktemp("federation"), routers=2)
    federation.start()
    yield federation
    federation.stop()


@pytest.fixture
def federation(shared: Federation) -> Iterator[Federation]:
    """The shared federation, every region made whole and the history checked at the end."""
    yield shared
    for region in shared.sandbox["regions"]:
        shared.sandbox_command("heal", region)
    with shared.database() as database:
        check(database)


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Callable[..., Federation]]:
    """Starts federations of the test's own: with crash points set, or to be destroyed."""
    started: list[Federation] = []

    def start(**options: object) -> Federation:
        federation = Federation(tmp_path, **options)  # type: ignore[arg-type]
        started.append(federation)
        federation.start()
        return federation

    yield start
    for federation in started:
        with federation.database() as database:
            check(database)
        federation.stop()
