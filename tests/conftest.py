"""What every test shares: asyncio is the one event loop of the servers, so `anyio` tests run on it alone."""

import pytest


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"
