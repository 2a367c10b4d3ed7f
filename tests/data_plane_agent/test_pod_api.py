"""`PodApi` against a small HTTP server that answers as an API server does, well or ill."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web
from whimbrel.errors import InvalidInput

from data_plane_agent import pod_api
from data_plane_agent.pod_api import (
    ApiDown,
    ApiError,
    Denied,
    Expired,
    Invalid,
    Missing,
    PodApi,
    Taken,
)
from data_plane_agent.reflector import Reflector

pytestmark = pytest.mark.anyio

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
PODS = "/api/v1/namespaces/tasks/pods"


def status(code: int, reason: str, message: str = "", **details: Any) -> web.Response:
    body = {"kind": "Status", "code": code, "reason": reason, "message": message}
    return web.json_response(body | {"details": details}, status=code)


class Fake:
    """Handlers by "METHOD path"; `asked` is every request with its query and body."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.handlers: dict[str, Handler] = {}
        self.asked: list[tuple[str, dict[str, str], Any]] = []
        self.authorizations: list[str] = []
        self.url = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.json() if request.can_read_body else None
        self.asked.append((f"{request.method} {request.path}", dict(request.query), body))
        self.authorizations.append(request.headers.get("Authorization", ""))
        return await self.handlers[f"{request.method} {request.path}"](request)

    def on(self, what: str, *answers: Any) -> None:
        """The answers one after the other, the last one for ever: dicts are JSON."""
        left = list(answers)

        async def answer(request: web.Request) -> web.StreamResponse:
            found = left.pop(0) if len(left) > 1 else left[0]
            if callable(found):
                return await found(request)
            if not isinstance(found, web.Response):
                return web.json_response(found)
            return web.Response(status=found.status, headers=found.headers, body=found.body)

        self.handlers[what] = answer

    def kubeconfig(self, token: dict[str, Any]) -> str:
        path = self.folder / "kubeconfig"
        it = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": {"server": self.url}}],
            "users": [{"name": "u", "user": token}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        }
        path.write_text(yaml.safe_dump(it))
        return str(path)


@pytest.fixture
async def fake(tmp_path: Path) -> AsyncIterator[Fake]:
    fake = Fake(tmp_path)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", fake.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    fake.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield fake
    await runner.cleanup()


@pytest.fixture
async def api(fake: Fake) -> AsyncIterator[PodApi]:
    path = fake.kubeconfig({"token": "secret-token"})
    api = await PodApi.connect(kubeconfig=path, namespace="tasks")
    yield api
    await api.close()


def chunks(*parts: bytes, then: str = "end") -> Handler:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        for part in parts:
            await response.write(part)
            await asyncio.sleep(0)
        match then:
            case "cut":
                assert request.transport is not None
                request.transport.abort()
            case "silence":
                await asyncio.sleep(60)
        return response

    return answer


def event(kind: str, **about: Any) -> bytes:
    return json.dumps({"type": kind, "object": about}).encode() + b"\n"


async def everything(api: PodApi) -> list[tuple[str, dict[str, Any]]]:
    return [one async for one in api.watch("pods", resource_version="7")]


POD = {"metadata": {"name": "w-1", "uid": "u1", "resourceVersion": "8", "managedFields": [1]}}
SLIM = {"metadata": {"name": "w-1", "uid": "u1", "resourceVersion": "8"}}

# -- pods -----------------------------------------------------------------------------------------


async def test_creates_a_pod_with_the_token(fake: Fake, api: PodApi) -> None:
    fake.on(f"POST {PODS}", POD)
    manifest = {"metadata": {"name": "w-1", "labels": {"a/b": "c"}}, "spec": {"unheard-of": None}}
    assert await api.create(manifest) == SLIM
    assert fake.asked == [(f"POST {PODS}", {}, manifest)]
    assert fake.authorizations == ["Bearer secret-token"]


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (status(409, "AlreadyExists"), Taken),
        (status(409, "Conflict", "the object has been modified"), ApiDown),
        (status(403, "Forbidden", "exceeded quota: q, requested: pods=1"), Denied),
        (status(400, "BadRequest"), Invalid),
        (status(422, "Invalid"), Invalid),
        (status(404, "NotFound", 'namespaces "tasks" not found'), Missing),
        (status(410, "Expired"), Expired),
        (status(401, "Unauthorized"), ApiDown),
        (status(429, "TooManyRequests"), ApiDown),
        (status(500, "InternalError"), ApiDown),
        (status(503, "ServiceUnavailable"), ApiDown),
        (status(405, "MethodNotAllowed"), ApiError),
        (web.Response(status=502, text="<html>bad gateway"), ApiDown),
        (web.Response(status=200, text='{"metadata": {"na'), ApiDown),
    ],
)
async def test_errors_are_sorted_by_what_to_do(
    fake: Fake, api: PodApi, answer: web.Response, error: type[ApiError]
) -> None:
    fake.on(f"POST {PODS}", answer)
    with pytest.raises(ApiError) as caught:
        await api.create({})
    assert type(caught.value) is error
    assert caught.value.status == (answer.status if answer.status >= 300 else 0)


@pytest.mark.parametrize(
    ("message", "later"),
    [
        ('pods "x" is forbidden: exceeded quota: q, requested: pods=1', True),
        ('pods "x" is forbidden: status unknown for quota: q', True),
        ('pods "x" is forbidden: violates PodSecurity "restricted:latest"', False),
    ],
)
async def test_a_used_up_quota_is_told_from_a_refusal(
    fake: Fake, api: PodApi, message: str, later: bool
) -> None:
    fake.on(f"POST {PODS}", status(403, "Forbidden", message))
    with pytest.raises(Denied) as caught:
        await api.create({})
    assert caught.value.over_quota is later
    assert caught.value.message == message


async def test_retry_after_is_read_from_header_or_details(fake: Fake, api: PodApi) -> None:
    fake.on(
        f"POST {PODS}",
        web.Response(status=429, headers={"Retry-After": "3"}, text="Too many requests"),
        status(429, "TooManyRequests", retryAfterSeconds=5),
        web.Response(status=503, headers={"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}),
    )
    waits: list[float | None] = []
    for _ in range(3):
        with pytest.raises(ApiDown) as caught:
            await api.create({})
        waits.append(caught.value.retry_after)
    assert waits == [3.0, 5.0, None]


async def test_a_pod_that_is_not_there_is_none(fake: Fake, api: PodApi) -> None:
    fake.on(f"GET {PODS}/w-1", POD, status(404, "NotFound"))
    assert await api.get("w-1") == SLIM
    assert await api.get("w-1") is None


async def test_deletes_only_the_pod_of_that_uid(fake: Fake, api: PodApi) -> None:
    fake.on(f"DELETE {PODS}/w-1", POD)
    await api.delete("w-1", uid="u1")
    await api.delete("w-1", uid="u1", grace_seconds=0)
    first, second = (body for _, _, body in fake.asked)
    assert first["preconditions"] == {"uid": "u1"}
    assert "gracePeriodSeconds" not in first
    assert second["gracePeriodSeconds"] == 0


@pytest.mark.parametrize("answer", [status(404, "NotFound"), status(409, "Conflict")])
async def test_a_pod_gone_or_made_anew_is_as_good_as_deleted(
    fake: Fake, api: PodApi, answer: web.Response
) -> None:
    fake.on(f"DELETE {PODS}/w-1", answer)
    await api.delete("w-1", uid="u1")


async def test_a_delete_that_is_refused_is_told(fake: Fake, api: PodApi) -> None:
    fake.on(f"DELETE {PODS}/w-1", status(403, "Forbidden"))
    with pytest.raises(Denied):
        await api.delete("w-1", uid="u1")


async def test_a_log_is_streamed(fake: Fake, api: PodApi) -> None:
    fake.on(f"GET {PODS}/w-1/log", chunks(b"one\n", b"two\xff"))
    parts = [part async for part in api.log("w-1", follow=True, limit_bytes=99)]
    assert b"".join(parts) == b"one\ntwo\xff"
    query = {"container": "task", "follow": "true", "limitBytes": "99"}
    assert fake.asked == [(f"GET {PODS}/w-1/log", query, None)]


async def test_the_log_of_a_pod_that_is_gone(fake: Fake, api: PodApi) -> None:
    fake.on(f"GET {PODS}/w-1/log", status(404, "NotFound"))
    with pytest.raises(Missing):
        [part async for part in api.log("w-1", follow=False)]


# -- lists and watches ----------------------------------------------------------------------------


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
    monkeypatch.setattr(pod_api, "WATCH_SECONDS", 0.0)
    monkeypatch.setattr(pod_api, "WATCH_MARGIN_SECONDS", 0.1)
    fake.on(f"GET {PODS}", chunks(event("ADDED", **POD), then="silence"))
    with pytest.raises(ApiDown, match="in time"):
        await everything(api)


async def test_a_call_that_hangs_is_given_up(
    fake: Fake, api: PodApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pod_api, "CALL_SECONDS", 0.1)
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


# -- the server -----------------------------------------------------------------------------------


async def test_asks_what_it_may(fake: Fake, api: PodApi) -> None:
    reviews = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    fake.on(f"POST {reviews}", {"status": {"allowed": True}}, {"status": {}})
    assert await api.may("get", "pods", "log")
    assert not await api.may("list", "nodes", namespaced=False)
    first, second = (body["spec"]["resourceAttributes"] for _, _, body in fake.asked)
    assert first == {
        "group": "",
        "verb": "get",
        "resource": "pods",
        "subresource": "log",
        "namespace": "tasks",
    }
    assert second == {"group": "", "verb": "list", "resource": "nodes"}


async def test_health_is_what_readyz_says(fake: Fake, api: PodApi) -> None:
    fake.on(
        "GET /readyz",
        web.Response(text="ok"),
        web.Response(status=500, text="etcd failed"),
        status(403, "Forbidden"),
    )
    await api.healthy()
    for _ in range(2):
        with pytest.raises(ApiDown):
            await api.healthy()


async def test_nobody_at_that_address(fake: Fake) -> None:
    fake.url = "http://127.0.0.1:1"
    api = await PodApi.connect(kubeconfig=fake.kubeconfig({}), namespace="tasks")
    with pytest.raises(ApiDown, match="can't be reached"):
        await api.healthy()
    await api.close()


async def test_a_token_in_a_file_is_read_again(
    fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = tmp_path / "token"
    token.write_text("old")
    api = await PodApi.connect(kubeconfig=fake.kubeconfig({"tokenFile": "token"}), namespace="t")
    fake.on("GET /readyz", web.Response(text="ok"))
    await api.healthy()
    token.write_text("new")
    await api.healthy()  # not yet
    monkeypatch.setattr(pod_api, "CREDENTIALS_SECONDS", 0.0)
    await api.healthy()
    token.unlink()
    await api.healthy()  # the last one known, better than none
    await api.close()
    assert fake.authorizations == ["Bearer old", "Bearer old", "Bearer new", "Bearer new"]


@pytest.mark.parametrize("text", ["", "just words", "clusters: []\ncurrent-context: nowhere\n"])
async def test_a_kubeconfig_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(text)
    with pytest.raises(InvalidInput, match="kubeconfig"):
        await PodApi.connect(kubeconfig=str(path), namespace="tasks")


async def test_outside_a_pod_a_kubeconfig_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(InvalidInput, match="give a kubeconfig"):
        await PodApi.connect(kubeconfig="", namespace="tasks")
