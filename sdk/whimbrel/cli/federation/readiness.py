"""When a part is ready: its gRPC health service says SERVING.

Called by the supervisor. Nothing here has a deadline of its own; the caller has one.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from whimbrel.errors import Unreachable
from whimbrel.service.rpc import channel

T = TypeVar("T")
PAUSE_SECONDS = 0.05


async def healthy(address: str, service: str = "") -> None:
    """Returns at the first SERVING of the service at host:port."""
    while True:
        async with channel(address) as connection:
            stub = health_pb2_grpc.HealthStub(connection)
            request = health_pb2.HealthCheckRequest(service=service)
            try:
                answer = await stub.Check(request, timeout=2, wait_for_ready=True)
                if answer.status == health_pb2.HealthCheckResponse.SERVING:
                    return
            except grpc.aio.AioRpcError:
                pass  # not there yet, or it does not know the service yet
        await asyncio.sleep(PAUSE_SECONDS)


async def until(call: Callable[[], Awaitable[T]]) -> T:
    """The answer of `call`, asked again for as long as nobody answers."""
    while True:
        try:
            return await call()
        except Unreachable:
            await asyncio.sleep(PAUSE_SECONDS)
