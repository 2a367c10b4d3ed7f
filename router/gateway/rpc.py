"""The agents' door: the session's stream, heartbeats, and the calls that are only passed on.

Called by agents, over connections that they open; hands Hello and heartbeats to `sessions.py`, and
the bytes of Claim, Commit and the Fetch calls, unread, to the control plane's ledger.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
from whimbrel.errors import Fenced, InvalidInput
from whimbrel.wire.v1 import agent_pb2

from router import codec
from router.ledger import Ledger
from router.sessions import Sessions
from router.streams import Stream

SERVICE = "whimbrel.wire.v1.AgentGateway"
HELLO_SECONDS = 10.0
"""For the first message of a stream. Too short refuses a slow link, too long keeps dead streams."""

_grpc: Any = grpc  # grpc's stubs leave handlers generic over messages that they can't name


class Gateway:
    def __init__(self, sessions: Sessions, ledger: Ledger) -> None:
        self._sessions = sessions
        self._ledger = ledger

    async def session(
        self, messages: AsyncIterator[agent_pb2.AgentMessage], context: Any
    ) -> AsyncIterator[agent_pb2.RouterMessage]:
        try:
            async with asyncio.timeout(HELLO_SECONDS):
                first = await anext(messages)
        except (StopAsyncIteration, TimeoutError) as cause:
            raise InvalidInput("a session begins with a Hello") from cause
        if first.WhichOneof("body") != "hello":
            raise InvalidInput("a session begins with a Hello")
        try:
            stream, welcome = await self._sessions.hello(codec.hello_from_wire(first.hello))
        except Fenced:
            yield codec.bye("superseded")
            return
        reading = asyncio.create_task(
            self._read(messages, stream), name=f"read the stream of {stream.cluster}"
        )
        try:
            yield codec.welcome_to_wire(welcome)
            async for message in stream.messages():
                yield codec.outgoing_to_wire(message)
        finally:
            self._sessions.detach(stream)
            reading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await reading

    async def _read(self, messages: AsyncIterator[agent_pb2.AgentMessage], stream: Stream) -> None:
        try:
            async for message in messages:
                if message.WhichOneof("body") == "answer":
                    stream.answered(message.answer.id, message.answer)
        finally:
            stream.close("")

    async def beat(
        self, beats: AsyncIterator[agent_pb2.Heartbeat], context: Any
    ) -> AsyncIterator[agent_pb2.HeartbeatAck]:
        async for beat in beats:
            ack = await self._sessions.beat(codec.beat_from_wire(beat), codec.capacity_of(beat))
            yield codec.ack_to_wire(ack, beat)

    def register(self, server: grpc.aio.Server) -> None:
        handlers = {
            "Session": _grpc.stream_stream_rpc_method_handler(
                self.session,
                request_deserializer=agent_pb2.AgentMessage.FromString,
                response_serializer=agent_pb2.RouterMessage.SerializeToString,
            ),
            "Beat": _grpc.stream_stream_rpc_method_handler(
                self.beat,
                request_deserializer=agent_pb2.Heartbeat.FromString,
                response_serializer=agent_pb2.HeartbeatAck.SerializeToString,
            ),
            # No (de)serializer: bytes in, bytes out.
            "Claim": _grpc.unary_stream_rpc_method_handler(self._streamed("Claim")),
            "FetchBundle": _grpc.unary_stream_rpc_method_handler(self._streamed("FetchBundle")),
            "Commit": _grpc.unary_unary_rpc_method_handler(self._single("Commit")),
            "FetchSpec": _grpc.unary_unary_rpc_method_handler(self._single("FetchSpec")),
        }
        accepting: Any = server
        accepting.add_generic_rpc_handlers(
            (_grpc.method_handlers_generic_handler(SERVICE, handlers),)
        )

    def _single(self, method: str) -> Any:
        async def relay(request: bytes, context: Any) -> bytes:
            return await self._ledger.relay(method, request, timeout=context.time_remaining())

        return relay

    def _streamed(self, method: str) -> Any:
        async def relay(request: bytes, context: Any) -> AsyncIterator[bytes]:
            timeout = context.time_remaining()
            async for page in self._ledger.relay_stream(method, request, timeout=timeout):
                yield page

        return relay
