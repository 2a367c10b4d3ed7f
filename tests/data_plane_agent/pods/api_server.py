"""A small HTTP server that answers as an API server does, well or ill, as each test says."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import yaml
from aiohttp import web

from data_plane_agent.pods.api import PodApi

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
PODS = "/api/v1/namespaces/tasks/pods"
POD = {"metadata": {"name": "w-1", "uid": "u1", "resourceVersion": "8", "managedFields": [1]}}
SLIM = {"metadata": {"name": "w-1", "uid": "u1", "resourceVersion": "8"}}


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


@asynccontextmanager
async def api_server(folder: Path) -> AsyncIterator[Fake]:
    fake = Fake(folder)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", fake.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    fake.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield fake
    await runner.cleanup()


@asynccontextmanager
async def connected(fake: Fake) -> AsyncIterator[PodApi]:
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
