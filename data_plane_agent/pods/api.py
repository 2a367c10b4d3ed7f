"""The API server of one cluster, one namespace of it: raw JSON over the `kubernetes` client.

Called by `reflector.py` (list, watch) and `launcher.py` (create, delete, log); answers with plain
dicts, or raises one of the errors below. Nothing else in the project imports the client.
"""

import logging
import random
import socket
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal, Self, cast

import aiohttp
from kubernetes.aio import client as kubernetes
from kubernetes.aio import config as kubernetes_config
from whimbrel.errors import InvalidInput

from data_plane_agent.pace import Pace
from data_plane_agent.pods.api_errors import ApiDown as ApiDown
from data_plane_agent.pods.api_errors import ApiError as ApiError
from data_plane_agent.pods.api_errors import Denied as Denied
from data_plane_agent.pods.api_errors import Expired as Expired
from data_plane_agent.pods.api_errors import Invalid as Invalid
from data_plane_agent.pods.api_errors import Missing as Missing
from data_plane_agent.pods.api_errors import Object as Object
from data_plane_agent.pods.api_errors import Taken as Taken
from data_plane_agent.pods.api_errors import error_of
from data_plane_agent.pods.api_json import lines, parsed, part, slim

Resource = Literal["pods", "nodes", "events", "resourcequotas"]

log = logging.getLogger(__name__)

CONNECT_SECONDS = 5.0
"""To open a connection: shorter takes a busy server for a dead one, longer hides a dead one."""
CALL_SECONDS = 20.0
"""For one whole call: shorter gives up creates that succeed (each is looked at again by its name),
longer keeps 16 writers waiting on a server that hangs."""
HEALTH_SECONDS = 3.0
"""For /readyz: shorter calls a slow server ill, longer gives an ill one more work."""
WATCH_SECONDS = 240.0
"""A watch is ended by the server after 1 to 1.25 times this: shorter costs requests, longer trusts
one connection for longer."""
WATCH_MARGIN_SECONDS = 10.0
"""Beyond the server's end of a silent watch: shorter cuts watches that are about to end well,
longer keeps a connection of which the other half is gone."""
LOG_QUIET_SECONDS = 600.0
"""A followed log may be silent: shorter breaks off the logs of quiet tasks, longer leaves a reader
with a connection of which the other half is gone."""
CREDENTIALS_SECONDS = 60.0
"""The kubeconfig's token is read again after this: shorter costs file reads (an `exec` plugin keeps
its own time), longer works with an expired token for longer."""
CONNECTIONS = 256
"""To the API server at once: fewer let followed logs starve the writes, more are never used."""
KEEPALIVE = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}
"""Seconds, seconds, probes: a cut line is noticed after 30 s. Shorter breaks watches at each short
cut, longer believes an old picture of the cluster for longer."""


@dataclass(frozen=True, slots=True)
class Page:
    """Part of a list. `more` != "" asks for the next part; the version is of the whole list."""

    items: list[Object]
    resource_version: str
    more: str = ""


class PodApi:
    def __init__(
        self, client: Any, *, namespace: str, pace: Pace, connector: aiohttp.TCPConnector
    ) -> None:
        self._client = client
        self._connector = connector
        self._pace = pace
        self.namespace = namespace

    @classmethod
    async def connect(
        cls, *, kubeconfig: str, namespace: str, qps: float = 50.0, burst: int = 100
    ) -> Self:
        """`kubeconfig` is a path, "" = the service account of the pod this runs in. Asks the server
        nothing. Raises InvalidInput."""
        configuration: Any = kubernetes.Configuration()
        # Certificates that Go's clients accept: API servers make their own without key identifiers.
        configuration.disable_strict_ssl_verification = True
        try:
            await _load(configuration, kubeconfig)
            client: Any = kubernetes.ApiClient(configuration=configuration)
        except (
            kubernetes_config.ConfigException,
            OSError,
            ValueError,
            TypeError,
            KeyError,
        ) as error:
            if kubeconfig:
                raise InvalidInput(f"kubeconfig {kubeconfig} can't be used: {error}") from error
            raise InvalidInput(
                f"this is no pod with a service account: {error}",
                remedy="give a kubeconfig, or run in a pod that mounts its service account's token",
            ) from error
        client.user_agent = "whimbrel-agent"
        connector = aiohttp.TCPConnector(
            limit=CONNECTIONS, ssl=client.rest_client.ssl_context, socket_factory=_socket
        )
        configuration.client_session_kwargs = {"connector": connector}
        pace = Pace(qps, burst=burst)
        return cls(client, namespace=namespace, pace=pace, connector=connector)

    @property
    def server(self) -> str:
        """URL of the API server."""
        return self._client.configuration.host

    async def close(self) -> None:
        await self._client.close()
        await self._connector.close()

    # -- pods -------------------------------------------------------------------------------------

    async def create(self, manifest: Object) -> Object:
        """A pod. Raises Taken, Denied, Invalid, Missing (the namespace), ApiDown."""
        await self._pace.turn()
        return slim(await self._json("POST", self._path("pods"), body=manifest))

    async def get(self, name: str) -> Object | None:
        """A pod, None when there is none."""
        try:
            return slim(await self._json("GET", self._path("pods", name)))
        except Missing:
            return None

    async def delete(self, name: str, *, uid: str, grace_seconds: int | None = None) -> None:
        """A pod, if it still is that one. Gone already, or another uid: fine. `grace_seconds` None:
        as its manifest says."""
        options: Object = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "preconditions": {"uid": uid},
        }
        if grace_seconds is not None:
            options["gracePeriodSeconds"] = grace_seconds
        await self._pace.turn()
        try:
            await self._json("DELETE", self._path("pods", name), body=options)
        except Missing:
            return
        except ApiError as error:
            if error.status != 409:
                raise

    async def log(
        self, name: str, *, follow: bool, limit_bytes: int | None = None
    ) -> AsyncGenerator[bytes]:
        """What container `task` of a pod wrote, from its start. Raises Missing (the pod is gone),
        Invalid (the container has not started), ApiDown."""
        query = {"container": "task", "follow": "true" if follow else "false"}
        if limit_bytes is not None:
            query["limitBytes"] = str(limit_bytes)
        path = self._path("pods", name) + "/log"
        timeout = _streaming(LOG_QUIET_SECONDS if follow else CALL_SECONDS)
        async with self._answer("GET", path, query=query, timeout=timeout) as answer:
            async for chunk in answer.content.iter_any():
                yield chunk

    # -- any resource -----------------------------------------------------------------------------

    async def list(
        self, resource: Resource, *, selector: str = "", more: str = "", limit: int = 500
    ) -> Page:
        """Raises Expired (a page asked for too late), Denied, ApiDown."""
        query = {"limit": str(limit)}
        if selector:
            query["labelSelector"] = selector
        if more:
            query["continue"] = more
        found = await self._json("GET", self._path(resource), query=query)
        about = part(found, "metadata")
        return Page(
            items=[slim(item) for item in found.get("items") or ()],
            resource_version=about.get("resourceVersion", ""),
            more=about.get("continue") or "",
        )

    async def watch(
        self, resource: Resource, *, resource_version: str, selector: str = ""
    ) -> AsyncGenerator[tuple[str, Object]]:
        """("ADDED" | "MODIFIED" | "DELETED" | "BOOKMARK", object) until the server ends it in its
        time. The first is a BOOKMARK of the version asked for: the server has accepted the watch.
        Raises Expired, Denied, ApiDown."""
        seconds = int(WATCH_SECONDS * (1 + random.random() / 4))
        query = {
            "watch": "1",
            "resourceVersion": resource_version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(seconds),
        }
        if selector:
            query["labelSelector"] = selector
        timeout = _streaming(seconds + WATCH_MARGIN_SECONDS)
        async with self._answer(
            "GET", self._path(resource), query=query, timeout=timeout
        ) as answer:
            yield "BOOKMARK", {"metadata": {"resourceVersion": resource_version}}
            async for line in lines(answer.content.iter_any()):
                event = parsed(line)
                kind = event.get("type")
                about = event.get("object")
                if not isinstance(kind, str) or not isinstance(about, dict):
                    raise ApiDown("the API server sent an event without a type or an object")
                if kind == "ERROR":
                    raise error_of(0, cast(Object, about))
                yield kind, slim(cast(Object, about))

    # -- the server itself ------------------------------------------------------------------------

    async def may(
        self, verb: str, resource: str, subresource: str = "", *, namespaced: bool = True
    ) -> bool:
        """Whether this agent is allowed to."""
        attributes = {"group": "", "verb": verb, "resource": resource}
        if subresource:
            attributes["subresource"] = subresource
        if namespaced:
            attributes["namespace"] = self.namespace
        review = await self._json(
            "POST",
            "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
            body={
                "apiVersion": "authorization.k8s.io/v1",
                "kind": "SelfSubjectAccessReview",
                "spec": {"resourceAttributes": attributes},
            },
        )
        return bool(part(review, "status").get("allowed"))

    async def whoami(self) -> str:
        """The user name under which the API server knows this agent, "" when it does not tell."""
        kind = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
        try:
            review = await self._json(
                "POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", body=kind
            )
        except (Missing, Denied):  # before 1.28, or without the usual role
            return ""
        return part(part(review, "status"), "userInfo").get("username") or ""

    async def healthy(self) -> None:
        """Returns when the API server says it is ready; raises ApiDown."""
        timeout = aiohttp.ClientTimeout(total=HEALTH_SECONDS)
        try:
            async with self._answer("GET", "/readyz", timeout=timeout) as answer:
                await answer.read()
        except ApiDown:
            raise
        except ApiError as error:
            raise ApiDown(error.message, status=error.status, reason=error.reason) from error

    # -- requests ---------------------------------------------------------------------------------

    def _path(self, resource: Resource, name: str = "") -> str:
        within = "" if resource == "nodes" else f"/namespaces/{self.namespace}"
        return f"/api/v1{within}/{resource}" + (f"/{name}" if name else "")

    async def _json(
        self, method: str, path: str, *, query: dict[str, str] | None = None, body: Any = None
    ) -> Object:
        timeout = aiohttp.ClientTimeout(total=CALL_SECONDS, sock_connect=CONNECT_SECONDS)
        async with self._answer(method, path, query=query, body=body, timeout=timeout) as answer:
            return parsed(await answer.read())

    @asynccontextmanager
    async def _answer(
        self,
        method: str,
        path: str,
        *,
        timeout: aiohttp.ClientTimeout,
        query: dict[str, str] | None = None,
        body: Any = None,
    ) -> AsyncGenerator[aiohttp.ClientResponse]:
        """A good answer whose body is still to be read; whatever fails until then, or while it is
        read, is an ApiError."""
        response: aiohttp.ClientResponse | None = None
        try:
            _, url, headers, body, _ = await self._client.param_serialize(
                method,
                path,
                query_params=list((query or {}).items()),
                header_params={"Accept": "application/json, */*"},
                body=body,
                auth_settings=["BearerToken"],
            )
            raw = await self._client.call_api(
                method, url, headers, body, _request_timeout=timeout, _preload_content=False
            )
            response = cast(aiohttp.ClientResponse, raw.response)
            if response.status >= 300:
                raise _refusal(response, await response.read())
            yield response
        except TimeoutError as error:
            raise ApiDown(f"no answer from the API server in time ({method} {path})") from error
        except aiohttp.ClientPayloadError as error:
            raise ApiDown("the API server broke off in the middle of an answer") from error
        except (aiohttp.ClientError, OSError) as error:
            raise ApiDown(
                f"the API server can't be reached: {error or type(error).__name__}"
            ) from error
        except kubernetes_config.ConfigException as error:
            raise ApiDown(f"the service account's token can't be read: {error}") from error
        finally:
            if response is not None:
                response.close()


async def _load(configuration: Any, kubeconfig: str) -> None:
    loading: Any = kubernetes_config
    if not kubeconfig:
        loading.load_incluster_config(client_configuration=configuration)
        return
    loader: Any = await loading.load_kube_config(
        config_file=kubeconfig, client_configuration=configuration, persist_config=False
    )
    if not configuration.api_key:
        return
    read_at = time.monotonic()

    async def read_again(configuration: Any) -> None:
        nonlocal read_at
        if time.monotonic() - read_at < CREDENTIALS_SECONDS:
            return
        read_at = time.monotonic()
        try:
            await loader.load_and_set(configuration)
        except (kubernetes_config.ConfigException, OSError, ValueError) as error:
            log.warning("kubeconfig %s: its token can't be read again: %s", kubeconfig, error)

    configuration.refresh_api_key_hook = read_again


def _socket(address: Any) -> socket.socket:
    family, kind, protocol, _, _ = address
    made = socket.socket(family, kind, protocol)
    made.setblocking(False)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in KEEPALIVE.items():
        if hasattr(socket, option):
            made.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
    return made


def _streaming(silence: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=silence)


def _refusal(response: aiohttp.ClientResponse, body: bytes) -> ApiError:
    try:
        status = parsed(body)
    except ApiDown:
        status = {"message": body[:500].decode(errors="replace") or response.reason or ""}
    return error_of(response.status, status, header=response.headers.get("Retry-After", ""))
