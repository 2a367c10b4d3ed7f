"""What tests share: a small API server and a client of it; a launcher with real processes."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from data_plane_agent.launcher import Found
from data_plane_agent.pods.api import PodApi
from data_plane_agent.processes.launcher import ProcessLauncher
from tests.data_plane_agent.pods.api_server import Fake, api_server, connected
from tests.data_plane_agent.processes.under_test import FLOW, Events, Region


@pytest.fixture
async def fake(tmp_path: Path) -> AsyncIterator[Fake]:
    async with api_server(tmp_path) as fake:
        yield fake


@pytest.fixture
async def api(fake: Fake) -> AsyncIterator[PodApi]:
    async with connected(fake) as api:
        yield api


@pytest.fixture
def region(tmp_path: Path) -> Region:
    region = Region(tmp_path)
    region.write(FLOW)
    return region


@pytest.fixture
async def launcher(region: Region) -> AsyncIterator[ProcessLauncher]:
    launcher = region.launcher()
    await launcher.open()
    yield launcher
    await launcher.close(kill=True)


@pytest.fixture
async def events(launcher: ProcessLauncher) -> Events:
    events = launcher.watch()
    assert await anext(events) == [Found({})]
    return events
