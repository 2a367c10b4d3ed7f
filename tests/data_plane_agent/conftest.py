"""What tests of the API client share: a small API server, and a client of it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from data_plane_agent.pod_api import PodApi
from tests.data_plane_agent.api_server import Fake, api_server, connected


@pytest.fixture
async def fake(tmp_path: Path) -> AsyncIterator[Fake]:
    async with api_server(tmp_path) as fake:
        yield fake


@pytest.fixture
async def api(fake: Fake) -> AsyncIterator[PodApi]:
    async with connected(fake) as api:
        yield api
