"""One launcher out of two: who gets what, and that no batch is lost between them."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from whimbrel.spec import Failure, Owner, Resources

from data_plane_agent.launcher import AttemptKey, Broke, Capacity, Found
from data_plane_agent.warm.pools import WarmPools
from data_plane_agent.warm.routing import WarmLauncher
from data_plane_agent.warm.sight import NoPod
from tests.data_plane_agent.processes.under_test import ends, until_ended
from tests.data_plane_agent.warm.under_test import SETTINGS, Region, region
from tests.fakes import FakeLauncher

pytestmark = pytest.mark.anyio

FLOW = """
    from whimbrel import task

    @task
    def double(x: int) -> int:
        return 2 * x
"""
OLD = AttemptKey("p/d/old", "n", 1, 1)


class Single(FakeLauncher):
    """Breaks whatever it is given, so that it is seen who ran what."""

    def __init__(self) -> None:
        failure = Failure(Owner.USER, "single", "ran in a pod of its own")
        super().__init__(lambda _attempt: failure, found={OLD: "old digest"})

    @property
    def blobs(self):  # type: ignore[no-untyped-def]
        raise AssertionError

    async def open(self) -> None: ...

    async def close(self, *, kill: bool) -> None: ...

    def capacity(self) -> Capacity:
        whole = Resources(cpu=8.0, mem_bytes=100)
        return Capacity(whole, Resources(cpu=1.5, mem_bytes=100), 1, 2)


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Region]:
    with region(tmp_path, FLOW) as made:
        try:
            yield made
        finally:
            await made.pods.end()


@pytest.fixture
async def both(here: Region) -> AsyncIterator[WarmLauncher]:
    single = Single()
    warm = WarmPools(here.pods, here.orders, SETTINGS, fall_back=single.start)
    made = WarmLauncher(single, warm)
    await made.open()
    try:
        yield made
    finally:
        await made.close(kill=False)


async def test_warm_tasks_go_to_warm_pods_and_others_to_their_own(
    here: Region, both: WarmLauncher
) -> None:
    events = both.watch()
    assert await anext(events) == [Found({OLD: "old digest"})]
    attempts = [
        here.attempt("double", node=f"n{i}", inputs={"x": i}, warm=i % 2 == 0) for i in range(20)
    ]
    await both.start(attempts)
    told = ends(await until_ended(events, 20))
    assert {node for node, end in told.items() if isinstance(end, Broke)} == {
        f"n{i}" for i in range(1, 20, 2)
    }
    waiting = asyncio.ensure_future(anext(events))
    await asyncio.sleep(0)
    waiting.cancel()


async def test_what_warm_pods_can_not_serve_runs_as_any_other(
    here: Region, both: WarmLauncher
) -> None:
    here.pods.refuse = NoPod(Failure(Owner.CONFIG, "admission", "no"), passing=False)
    events = both.watch()
    await anext(events)
    await both.start([here.attempt("double", node=f"n{i}", inputs={"x": i}) for i in range(3)])
    told = ends(await until_ended(events, 3))
    assert {end.failure.kind for end in told.values() if isinstance(end, Broke)} == {"single"}


async def test_room_that_warm_pods_hold_is_not_free(here: Region, both: WarmLauncher) -> None:
    events = both.watch()
    await anext(events)
    assert both.capacity().free == Resources(cpu=1.5, mem_bytes=100)
    await both.start([here.attempt("double", inputs={"x": 1}, cpu=1.0)])
    await until_ended(events, 1)
    assert both.capacity().free == Resources(cpu=0.5, mem_bytes=100)
    assert (both.capacity().running, both.capacity().queued) == (1, 2)
