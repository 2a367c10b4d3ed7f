"""The control plane as the router needs it: epochs, losses, its health, and relayed bytes.

Called by sessions (a new cluster epoch), the lookout (a loss, are you there?) and the gateway's
door, which passes Claim, Commit and the Fetch calls through here without reading them.
"""

from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
from whimbrel.service.rpc import error_from

from router import codec

LEDGER = "/whimbrel.wire.v1.Ledger/"
HEALTH = "/grpc.health.v1.Health/Check"
RELAY_SECONDS = 60.0
"""Of a relayed call that has no deadline of its own. Too short cuts a large Claim or bundle, too
long keeps calls to a control plane that has stopped."""


class Ledger:
    """`timeout` in seconds of the router's own calls."""

    def __init__(self, channel: grpc.aio.Channel, *, timeout: float) -> None:
        self._channel: Any = channel
        self._timeout = timeout

    async def open_session(self, cluster: str, *, incarnation: str, region: str) -> int:
        """A new cluster epoch; raises what the control plane says, e.g. to an unknown cluster."""
        request = codec.open_session_request(cluster, incarnation=incarnation, region=region)
        answer = await self.relay("OpenSession", request, timeout=self._timeout)
        return codec.cluster_epoch_of(answer)

    async def report_lost(self, cluster: str, *, cluster_epoch: int, since_ns: int) -> None:
        request = codec.report_lost_request(cluster, cluster_epoch=cluster_epoch, since_ns=since_ns)
        await self.relay("ReportLost", request, timeout=self._timeout)

    async def serving(self, *, timeout: float) -> bool:
        """Whether it answers: an agent could say Hello now. What it answers does not matter."""
        try:
            await self._channel.unary_unary(HEALTH)(b"", timeout=timeout)
        except grpc.aio.AioRpcError as error:
            return error.code() is grpc.StatusCode.UNIMPLEMENTED
        return True

    async def relay(self, method: str, request: bytes, *, timeout: float | None = None) -> bytes:
        """Bytes there and back. Raises the error that the ledger answered."""
        call = self._channel.unary_unary(LEDGER + method)
        try:
            return await call(request, timeout=timeout or RELAY_SECONDS)
        except grpc.aio.AioRpcError as error:
            raise error_from(error) from error

    async def relay_stream(
        self, method: str, request: bytes, *, timeout: float | None = None
    ) -> AsyncIterator[bytes]:
        call = self._channel.unary_stream(LEDGER + method)(
            request, timeout=timeout or RELAY_SECONDS
        )
        try:
            async for page in call:
                yield page
        except grpc.aio.AioRpcError as error:
            raise error_from(error) from error
        finally:
            call.cancel()
