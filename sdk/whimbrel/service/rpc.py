"""gRPC as every server uses it: options, health, and errors in both directions.

Called by each `__main__` (`serve`) and by whoever calls another server (`channel`, `raise_from`).
Keepalive finds a frozen peer; liveness of an agent is its heartbeat, never this.
"""

import asyncio
import inspect
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, NoReturn

import grpc
import grpc.aio
from grpc_health.v1 import health as _health
from grpc_health.v1 import health_pb2, health_pb2_grpc

from whimbrel import client_errors
from whimbrel.errors import InvalidInput, Refused, WhimbrelError

# grpc's stubs leave these generic over messages or out; they are called in one place each.
health: Any = getattr(_health, "aio")  # noqa: B009
_grpc: Any = grpc
_aio: Any = grpc.aio

log = logging.getLogger(__name__)

MAX_MESSAGE_BYTES = 64 * 1024 * 1024
"""Of one message: a batch of events or a page of outputs. Too small refuses a legal batch."""

_BOTH: Sequence[tuple[str, Any]] = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
)
SERVER_OPTIONS = (
    *_BOTH,
    # Without these two a server answers its clients' pings with GOAWAY too_many_pings after
    # seconds.
    ("grpc.http2.min_ping_interval_without_data_ms", 500),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.so_reuseport", 0),
)
CHANNEL_OPTIONS = (
    *_BOTH,
    ("grpc.keepalive_time_ms", 2_000),
    ("grpc.keepalive_timeout_ms", 2_000),
    # keepalive_timeout alone missed a frozen peer for a minute; the ping's own limit finds it.
    ("grpc.http2.ping_timeout_ms", 2_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # A channel of one's own: a shared subchannel would keep another's backoff.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
)


def split_address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit():
        raise InvalidInput(f"{text!r} is no address", remedy="write host:port, e.g. 127.0.0.1:8470")
    return host.strip("[]"), int(port)


async def _abort(context: Any, error: BaseException, method: str) -> NoReturn:
    if isinstance(error, WhimbrelError):
        code = getattr(grpc.StatusCode, error.code, grpc.StatusCode.UNKNOWN)
        metadata = ((client_errors.METADATA_KEY, client_errors.payload(error)),)
        await context.abort(code, error.message[: client_errors.LIMIT_BYTES], metadata)
    log.error("%s failed: a bug", method, exc_info=error)
    await context.abort(grpc.StatusCode.INTERNAL, f"{type(error).__name__}: {error}"[:500])
    raise AssertionError  # abort always raises


_PASS = (grpc.aio.AbortError, asyncio.CancelledError, GeneratorExit)


def _answering(behaviour: Callable[..., Awaitable[Any]], method: str) -> Callable[..., Any]:
    async def handle(request: Any, context: Any) -> Any:
        try:
            return await behaviour(request, context)
        except _PASS:
            raise
        except Exception as error:
            await _abort(context, error, method)

    return handle


def _streaming(behaviour: Callable[..., Any], method: str) -> Callable[..., Any]:
    async def handle(request: Any, context: Any) -> AsyncIterator[Any]:
        try:
            answers = behaviour(request, context)
            if inspect.isawaitable(answers):
                await answers
                return
            async for answer in answers:
                yield answer
        except _PASS:
            raise
        except Exception as error:
            await _abort(context, error, method)

    return handle


class ErrorInterceptor(_aio.ServerInterceptor):
    """Turns our errors into a status; anything else is logged and INTERNAL."""

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        method: str = handler_call_details.method
        parts = {
            "request_deserializer": handler.request_deserializer,
            "response_serializer": handler.response_serializer,
        }
        if handler.response_streaming:
            behaviour = handler.stream_stream or handler.unary_stream
            make: Any = (
                _grpc.stream_stream_rpc_method_handler
                if handler.request_streaming
                else _grpc.unary_stream_rpc_method_handler
            )
            return make(_streaming(behaviour, method), **parts)
        behaviour = handler.stream_unary or handler.unary_unary
        make = (
            _grpc.stream_unary_rpc_method_handler
            if handler.request_streaming
            else _grpc.unary_unary_rpc_method_handler
        )
        return make(_answering(behaviour, method), **parts)


async def serve(
    registrations: Callable[[grpc.aio.Server], None],
    *,
    listen: str,
    options: Sequence[tuple[str, Any]] = (),
) -> grpc.aio.Server:
    """A started server with the health service; stop it with `await server.stop(grace)`."""
    split_address(listen)
    server: grpc.aio.Server = _aio.server(
        interceptors=[ErrorInterceptor()], options=[*SERVER_OPTIONS, *options]
    )
    registrations(server)
    servicer = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    try:
        port = server.add_insecure_port(listen)
    except RuntimeError as error:
        raise Refused(
            f"can't listen on {listen}: the port is in use or not ours",
            remedy="stop what uses it, or listen on another address",
        ) from error
    if port == 0:
        raise Refused(f"can't listen on {listen}", remedy="listen on another address")
    await server.start()
    await servicer.set("", health_pb2.HealthCheckResponse.SERVING)
    return server


def channel(target: str, *, options: Sequence[tuple[str, Any]] = ()) -> grpc.aio.Channel:
    """To one server (host:port) or the first of several that answers (comma list)."""
    addresses = [part.strip() for part in target.split(",") if part.strip()]
    if len(addresses) > 1:
        target = "ipv4:" + ",".join(addresses)
    return grpc.aio.insecure_channel(target, options=[*CHANNEL_OPTIONS, *options])


def error_from(error: grpc.RpcError) -> WhimbrelError:
    """What a failed call means in our own tree."""
    said: Any = error
    value = None
    for key, item in said.trailing_metadata() or ():
        if key == client_errors.METADATA_KEY:
            value = item
    return client_errors.error_of(said.code().name, said.details() or "", value)


def raise_from(error: grpc.RpcError) -> NoReturn:
    raise error_from(error) from error
