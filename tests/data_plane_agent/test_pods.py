"""The pod launcher over a cluster in memory: each way to begin, to end, to wait, to be stopped."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from whimbrel.spec import Owner, Resources

from data_plane_agent.launcher import Broke, Finished, Found, Saved, Started, Unplaceable
from data_plane_agent.pod_api import ApiDown, Denied, Invalid
from tests.data_plane_agent.pod_world import World, attempt, broke, done, node, world

pytestmark = pytest.mark.anyio


@pytest.fixture
async def w(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as made:
        assert await made.hear() == Found({})
        yield made


async def test_an_attempt_is_a_pod_and_its_answer_the_outputs(w: World) -> None:
    one = attempt()
    name = await w.start(one)
    w.api.run(name)
    assert isinstance(started := await w.hear(), Started)
    assert (started.key, started.host) == (one.key, "n1")
    assert (w.launcher.capacity().running, w.launcher.capacity().queued) == (1, 0)
    w.api.end(name, done())
    assert isinstance(end := await w.hear(), Finished)
    assert (end.key, end.outputs.value, end.host) == (one.key, '{"o0":1}', "n1")
    await w.start(attempt("other"))
    w.api.run("w-" + name.split("-")[1] + "-other-1-7")
    await w.hear()
    await w.until(lambda: name not in w.api.pods)


async def test_an_answer_that_says_broke_keeps_its_owner(w: World) -> None:
    name = await w.start(attempt())
    w.api.end(name, broke(), code=1)
    assert isinstance(await w.hear(), Started)
    assert isinstance(end := await w.hear(), Broke)
    assert (end.failure.owner, end.failure.kind) == (Owner.USER, "raised")


async def test_a_known_key_is_ignored(w: World) -> None:
    await w.start(attempt())
    await w.launcher.start([attempt()])
    await w.quiet()
    assert [verb for verb, _ in w.api.calls].count("create") == 1
