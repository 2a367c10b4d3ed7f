"""`PodApi` against a small server: pods, errors by what to do, credentials."""

import asyncio
import socket
from pathlib import Path

import pytest
from aiohttp import web
from whimbrel.errors import InvalidInput

from data_plane_agent.pods import api as api_module
from data_plane_agent.pods.api import (
    ApiDown,
    ApiError,
    Denied,
    Expired,
    Invalid,
    Missing,
    PodApi,
    Taken,
)
from tests.data_plane_agent.pods.api_server import (
    POD,
    PODS,
    SLIM,
    Fake,
    chunks,
    status,
)

pytestmark = pytest.mark.anyio


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
        (web.Response(status=200, text="[]"), ApiDown),
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
    assert fake.authorizations[-1] == "Bearer old"
    token.write_text("new")
    await api.healthy()
    assert fake.authorizations[-1] == "Bearer old"  # not yet
    monkeypatch.setattr(api_module, "CREDENTIALS_SECONDS", 0.0)
    await api.healthy()
    assert fake.authorizations[-1] == "Bearer new"
    token.unlink()
    await api.healthy()
    assert fake.authorizations[-1] == "Bearer new"  # the last one known, better than none
    await api.close()


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


async def test_writes_are_slowed_down_and_reads_are_not(fake: Fake) -> None:
    path = fake.kubeconfig({})
    api = await PodApi.connect(kubeconfig=path, namespace="tasks", qps=0.001, burst=2)
    fake.on(f"POST {PODS}", POD)
    fake.on(f"GET {PODS}/w-1", POD)
    fake.on(f"DELETE {PODS}/w-1", POD)
    await api.create({})
    await api.delete("w-1", uid="u1")
    assert await api.get("w-1")
    for write in (api.create({}), api.delete("w-1", uid="u1")):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(write, 0.05)
    await api.close()
    assert [what.split()[0] for what, _, _ in fake.asked] == ["POST", "DELETE", "GET"]


async def test_a_line_that_is_cut_is_found_out_by_the_kernel(
    fake: Fake, api: PodApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_module, "KEEPALIVE", {"TCP_KEEPIDLE": 77, "TCP_UNHEARD_OF": 1})
    fake.on("GET /readyz", web.Response(text="ok"))
    await api.healthy()
    (pool,) = api._connector._conns.values()  # idle connections; there is no public way to see one
    ((protocol, _),) = pool
    assert protocol.transport is not None
    line = protocol.transport.get_extra_info("socket")
    assert line.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    assert line.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 77
