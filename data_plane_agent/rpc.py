"""The agent's one outbound door: AgentGateway of whichever router answers.

Called by the session (stream), the engine (claim, commit, specs), the launcher (bundles) and the
heartbeat thread; hands bytes and messages.py values over; every failure of the wire becomes one of
ours. Never dialled into.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import grpc
import grpc.aio
from whimbrel.errors import Unreachable
from whimbrel.service import rpc
from whimbrel.wire.v1 import agent_pb2, agent_pb2_grpc, ledger_pb2

from data_plane_agent import codec
from data_plane_agent import messages as m

CALL_SECONDS = 20.0
"""For one call to the ledger. Shorter gives up on a slow but living database; longer waits for a
dead one."""
_COMMIT = "/whimbrel.wire.v1.AgentGateway/Commit"


@contextmanager
def _wire_errors() -> Generator[None]:
    """Failures of a call as ours. A channel closed under a call ends it as if the task had been
    cancelled: taken for that, a loop that lives for ever would end without a word."""
    try:
        yield
    except grpc.RpcError as error:
        rpc.raise_from(error)
    except (asyncio.CancelledError, grpc.aio.UsageError) as error:
        task = asyncio.current_task()
        if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
            raise
        raise Unreachable("the connection to the router was given up") from error


class Gateway:
    """The routers in turn. `address` is the one in use; `rotate` goes to the next after a
    failure."""

    def __init__(
        self,
        addresses: Sequence[str],
        *,
        cluster: str,
        dial: Callable[[str], grpc.aio.Channel] = rpc.channel,
    ) -> None:
        self._addresses = list(addresses)
        self._dial = dial
        self._cluster = cluster
        self._at = 0
        self._channel: grpc.aio.Channel | None = None

    @property
    def address(self) -> str:
        return self._addresses[self._at]

    async def rotate(self) -> None:
        self._at = (self._at + 1) % len(self._addresses)
        await self.close()

    async def close(self) -> None:
        channel, self._channel = self._channel, None
        if channel is not None:
            await channel.close(None)

    def _open(self) -> grpc.aio.Channel:
        if self._channel is None:
            self._channel = self._dial(self.address)
        return self._channel

    def _stub(self) -> "agent_pb2_grpc.AgentGatewayAsyncStub":
        return agent_pb2_grpc.AgentGatewayStub(self._open())

    async def session(self, said: AsyncIterator[m.FromAgent]) -> AsyncIterator[m.FromRouter]:
        """The stream of one session: what is said goes out, what is heard comes in, until either
        side ends it."""

        async def outgoing() -> AsyncIterator[agent_pb2.AgentMessage]:
            async for one in said:
                yield codec.to_router(one)

        call = self._stub().Session(outgoing())
        try:
            with _wire_errors():
                async for message in call:
                    heard = codec.from_router(message)
                    if heard is not None:
                        yield heard
        finally:
            call.cancel()

    async def claim(
        self, wishes: Sequence[m.Wish], *, cluster_epoch: int
    ) -> list[m.Claimed | m.NotClaimed]:
        request = ledger_pb2.ClaimRequest(
            cluster=self._cluster,
            cluster_epoch=cluster_epoch,
            wishes=[ledger_pb2.Wish(execution=one.execution, epoch=one.epoch) for one in wishes],
        )
        with _wire_errors():
            call = self._stub().Claim(request, timeout=CALL_SECONDS)
            return codec.claims([page async for page in call])

    async def commit(self, events: Sequence[bytes], *, first: int, cluster_epoch: int) -> m.Receipt:
        request = codec.commit_request(
            events, cluster=self._cluster, cluster_epoch=cluster_epoch, first=first
        )
        # Without a serializer the request's bytes go out as they are.
        channel: Any = self._open()
        call: Any = channel.unary_unary(
            _COMMIT, response_deserializer=ledger_pb2.CommitReply.FromString
        )
        with _wire_errors():
            return codec.receipt(await call(request, timeout=CALL_SECONDS))

    async def fetch_spec(self, digest: str) -> bytes:
        request = ledger_pb2.FetchSpecRequest(digest=digest)
        with _wire_errors():
            reply = await self._stub().FetchSpec(request, timeout=CALL_SECONDS)
        return reply.spec.SerializeToString()

    async def fetch_bundle(self, digest: str, to: Path) -> None:
        """The archive into the file `to`, whole or not at all."""
        part = to.with_name(f"{to.name}.{os.urandom(6).hex()}.part")
        to.parent.mkdir(parents=True, exist_ok=True)
        try:
            with part.open("wb") as file, _wire_errors():
                request = ledger_pb2.FetchBundleRequest(digest=digest)
                async for chunk in self._stub().FetchBundle(request, timeout=10 * CALL_SECONDS):
                    file.write(chunk.data)
            part.replace(to)
        finally:
            part.unlink(missing_ok=True)


class Pulse:
    """Heartbeats over a small channel of their own; synchronous, for the heartbeat's own thread."""

    def __init__(self, address: str) -> None:
        options = [*rpc.CHANNEL_OPTIONS, ("grpc.use_local_subchannel_pool", 1)]
        self._channel = grpc.insecure_channel(address, options=options)
        self._out: SimpleQueue[agent_pb2.Heartbeat | None] = SimpleQueue()
        stub = agent_pb2_grpc.AgentGatewayStub(self._channel)
        self._call: Any = stub.Beat(iter(self._out.get, None))

    def send(self, beat: m.Beat) -> None:
        self._out.put(codec.beat_to_wire(beat))

    def acks(self) -> Iterator[m.BeatAck]:
        """Blocks; ends when the stream does. Raises errors.Unreachable when it broke."""
        try:
            for ack in self._call:
                yield codec.ack_from_wire(ack)
        except grpc.RpcError as error:
            rpc.raise_from(error)

    def close(self) -> None:
        self._out.put(None)
        self._call.cancel()
        self._channel.close()
