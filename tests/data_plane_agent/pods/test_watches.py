"""`PodApi` against a small server: lists, watches, and the ways they break."""

import asyncio
from contextlib import aclosing
from typing import Any

import pytest
from aiohttp import web

from data_plane_agent.pods import api as api_module
from data_plane_agent.pods.api import (
    ApiDown,
    ApiError,
    Expired,
    PodApi,
)
from data_plane_agent.pods.reflector import Reflector
from tests.data_plane_agent.pods.api_server import (
    POD,
    PODS,
    SLIM,
    Fake,
    chunks,
    event,
    status,
)

pytestmark = pytest.mark.anyio


async def everything(api: PodApi) -> list[tuple[str, dict[str, Any]]]:
    return [one async for one in api.watch("pods", resource_version="7")]


async def test_lists_a_page(fake: Fake, api: PodApi) -> None:
    fake.on(
        f"GET {PODS}",
        {"metadata": {"resourceVersion": "9", "continue": "p2"}, "items": [POD]},
        {"metadata": {"resourceVersion": "9"}, "items": None},
    )
    first = await api.list("pods", selector="a=b")
    assert (first.items, first.resource_version, first.more) == ([SLIM], "9", "p2")
    last = await api.list("pods", selector="a=b", more=first.more)
    assert (last.items, last.more) == ([], "")
    assert [query for _, query, _ in fake.asked] == [
        {"limit": "500", "labelSelector": "a=b"},
        {"limit": "500", "labelSelector": "a=b", "continue": "p2"},
    ]


async def test_nodes_are_of_the_whole_cluster(fake: Fake, api: PodApi) -> None:
    fake.on("GET /api/v1/nodes", {"metadata": {"resourceVersion": "9"}, "items": []})
    assert (await api.list("nodes")).resource_version == "9"


async def test_watches_with_bookmarks_and_an_end(fake: Fake, api: PodApi) -> None:
    fake.on(f"GET {PODS}", chunks(event("ADDED", **POD) + event("BOOKMARK", metadata={})))
    assert await everything(api) == [
        ("BOOKMARK", {"metadata": {"resourceVersion": "7"}}),  # accepted
        ("ADDED", SLIM),
        ("BOOKMARK", {"metadata": {}}),
    ]
    query = fake.asked[0][1]
    assert query["resourceVersion"] == "7"
    assert query["allowWatchBookmarks"] == "true"
    assert 240 <= int(query["timeoutSeconds"]) <= 300


async def test_a_line_may_be_large_and_come_in_any_pieces(fake: Fake, api: PodApi) -> None:
    large = event("ADDED", metadata={"annotations": {"x": "é" * 3_000_000}})
    text = large + event("MODIFIED", **POD)
    cut = [text[i : i + 300_007] for i in range(0, len(text), 300_007)]
    fake.on(f"GET {PODS}", chunks(*cut))
    events = await everything(api)
    assert [kind for kind, _ in events] == ["BOOKMARK", "ADDED", "MODIFIED"]
    assert len(events[1][1]["metadata"]["annotations"]["x"]) == 3_000_000


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (status(410, "Expired"), Expired),
        (chunks(event("ERROR", code=410, reason="Expired", message="too old")), Expired),
        (chunks(event("ERROR", code=500, reason="InternalError")), ApiDown),
        (chunks(event("ADDED", **POD), b'{"type": "MODIF'), ApiDown),
        (chunks(event("ADDED", **POD), b'{"type": "MODIF', then="cut"), ApiDown),
        (chunks(b"what?\n"), ApiDown),
        (chunks(b'{"type": "ADDED"}\n'), ApiDown),
    ],
)
async def test_a_watch_that_breaks_says_how(
    fake: Fake, api: PodApi, answer: Any, error: type[ApiError]
) -> None:
    fake.on(f"GET {PODS}", answer)
    with pytest.raises(error):
        await everything(api)


async def test_a_half_open_watch_is_noticed(
    fake: Fake, api: PodApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_module, "WATCH_SECONDS", 0.0)
    monkeypatch.setattr(api_module, "WATCH_MARGIN_SECONDS", 0.1)
    fake.on(f"GET {PODS}", chunks(event("ADDED", **POD), then="silence"))
    with pytest.raises(ApiDown, match="in time"):
        await everything(api)


async def test_a_call_that_hangs_is_given_up(
    fake: Fake, api: PodApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_module, "CALL_SECONDS", 0.1)
    fake.on(f"GET {PODS}/w-1", chunks(b"{", then="silence"))
    with pytest.raises(ApiDown, match="in time"):
        await api.get("w-1")


async def test_a_watch_left_early_closes_its_connection(fake: Fake, api: PodApi) -> None:
    ended = asyncio.Event()

    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while request.transport is not None and not request.transport.is_closing():
            await response.write(event("ADDED", **POD))
            await asyncio.sleep(0.001)
        ended.set()
        return response

    fake.on(f"GET {PODS}", endless)
    async with aclosing(api.watch("pods", resource_version="7")) as events:
        async for kind, _ in events:
            if kind == "ADDED":
                break
    await asyncio.wait_for(ended.wait(), 30)


async def test_a_reflector_over_a_line_that_breaks_off_loses_nothing(
    fake: Fake, api: PodApi
) -> None:
    second = {"metadata": {"name": "w-2", "uid": "u2", "resourceVersion": "9"}}
    line = event("ADDED", **second)
    listed = {"metadata": {"resourceVersion": "7"}, "items": []}
    watches: list[Any] = [
        chunks(event("ADDED", **POD) + line[:20], then="cut"),
        chunks(line, then="silence"),
    ]

    async def pods(request: web.Request) -> web.StreamResponse:
        if "watch" not in request.query:
            return web.json_response(listed)
        return await watches.pop(0)(request)

    fake.on(f"GET {PODS}", pods)
    arrived = asyncio.Event()

    def on_change(_: object) -> None:
        if len(reflector.items) == 2:
            arrived.set()

    async def no_sleep(_: float) -> None: ...

    reflector = Reflector(api, "pods", on_change=on_change, sleep=no_sleep)
    running = asyncio.create_task(reflector.run())
    await asyncio.wait_for(arrived.wait(), 30)
    running.cancel()
    assert dict(reflector.items) == {"w-1": SLIM, "w-2": second}
    assert [q["resourceVersion"] for _, q, _ in fake.asked if "watch" in q] == ["7", "8"]
    await asyncio.gather(running, return_exceptions=True)
