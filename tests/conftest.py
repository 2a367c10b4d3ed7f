"""What every test shares: asyncio, the one event loop of the servers, patience, and a record of
the faults that were injected.
"""

from pathlib import Path

import pytest
from hypothesis import settings

from tests.e2e.faults.record import Record

settings.register_profile("any-machine", deadline=None)  # no test depends on how fast it is
settings.load_profile("any-machine")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--faults-json", type=Path, help="write what became of each injected fault")


def pytest_configure(config: pytest.Config) -> None:
    if file := config.getoption("--faults-json"):
        config.pluginmanager.register(Record(file), "faults")


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"
