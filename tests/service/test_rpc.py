"""Errors cross the wire whole, and the health service answers."""

import socket
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from whimbrel import client_errors
from whimbrel.errors import Fenced, InvalidInput, Refused, Unreachable, WhimbrelError
from whimbrel.service import rpc

pytestmark = pytest.mark.anyio


def free_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


async def refusing(request: bytes, context: Any) -> bytes:
    raise Refused("not now", remedy="wait", place="a.py:3")


async def broken(request: bytes, context: Any) -> bytes:
    raise ZeroDivisionError("a bug")


async def counting(request: bytes, context: Any) -> AsyncIterator[bytes]:
    yield b"1"
    raise Fenced("too late")


def register(server: grpc.aio.Server) -> None:
    handlers = {
        "Refuse": grpc.unary_unary_rpc_method_handler(refusing),
        "Break": grpc.unary_unary_rpc_method_handler(broken),
        "Count": grpc.unary_stream_rpc_method_handler(counting),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("t.T", handlers),))


@pytest.fixture
async def address() -> AsyncIterator[str]:
    listen = free_address()
    server = await rpc.serve(register, listen=listen)
    yield listen
    await server.stop(None)


async def test_an_error_arrives_with_its_type_remedy_and_place(address: str) -> None:
    async with rpc.channel(address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary("/t.T/Refuse")(b"")
        error = rpc.error_from(caught.value)
    assert isinstance(error, Refused)
    assert (error.message, error.remedy, error.place) == ("not now", "wait", "a.py:3")


async def test_what_is_no_error_of_ours_is_internal(address: str) -> None:
    async with rpc.channel(address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary("/t.T/Break")(b"")
    assert caught.value.code() is grpc.StatusCode.INTERNAL


async def test_a_stream_delivers_what_came_before_its_error(address: str) -> None:
    async with rpc.channel(address) as channel:
        seen: list[bytes] = []

        async def read() -> None:
            async for item in channel.unary_stream("/t.T/Count")(b""):
                seen.append(item)

        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await read()
    assert seen == [b"1"]
    assert isinstance(rpc.error_from(caught.value), Fenced)


async def test_a_started_server_is_serving_and_its_port_is_its_own(address: str) -> None:
    async with rpc.channel(address) as channel:
        answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
    with pytest.raises(Refused, match="in use"):
        await rpc.serve(register, listen=address)


def test_a_status_without_metadata_still_has_a_meaning() -> None:
    assert isinstance(client_errors.error_of("UNAVAILABLE", "gone"), Unreachable)
    assert isinstance(client_errors.error_of("INVALID_ARGUMENT", "bad", b"not json"), InvalidInput)
    assert type(client_errors.error_of("INTERNAL", "bug")) is WhimbrelError


@pytest.mark.parametrize("text", ["", "localhost", ":x", "host:"])
def test_an_address_needs_a_port(text: str) -> None:
    with pytest.raises(InvalidInput, match="no address"):
        rpc.split_address(text)
