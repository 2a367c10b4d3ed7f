"""What every test shares: asyncio, the one event loop of the servers, and patience."""

import pytest
from hypothesis import settings

settings.register_profile("any-machine", deadline=None)  # no test depends on how fast it is
settings.load_profile("any-machine")


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"
