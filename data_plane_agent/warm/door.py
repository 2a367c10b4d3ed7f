"""The one port of an agent that warm pods dial, and who may speak there.

Owned by `pools.py`, which knows the pods; the other end is `whimbrel.runtime_warm_door`. A line is
believed for the one pod whose token it named.
"""

import asyncio
import hmac
import logging
import socket
from collections.abc import Callable
from typing import cast

from whimbrel.runtime_frames import Decoder, Message, encode
from whimbrel.runtime_warm_door import PROTOCOL

log = logging.getLogger(__name__)

FRAME_LIMIT = 8 << 20
"""Bytes of one frame. A task's answer has at most 64 KiB of values, beside the names of its
artifacts and the end of its traceback."""
BUFFER_LIMIT = 64 << 20
"""Unsent bytes for a pod that reads nothing: then it is hung up on."""
HELLO_SECONDS = 10.0
"""From connecting to saying who it is: longer holds descriptors for strangers."""
_PROBES = {socket.TCP_KEEPIDLE: 15, socket.TCP_KEEPINTVL: 5, socket.TCP_KEEPCNT: 3}

TokenOf = Callable[[str, str], str | None]
"""(pool, pod) -> the token that this pod was given; None for a stranger."""


class Line(asyncio.Protocol):
    """One connection. `pod` is "" until it has shown its token."""

    def __init__(self, door: "Door") -> None:
        self.pod = ""
        self._door = door
        self._decoder = Decoder()
        self._pending = 0
        self._transport: asyncio.Transport | None = None
        self._late: asyncio.TimerHandle | None = None

    def send(self, messages: list[Message]) -> None:
        if self._transport is None or not messages:
            return
        self._transport.write(encode(messages))
        if self._transport.get_write_buffer_size() > BUFFER_LIMIT:
            self.hang_up()

    def hang_up(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        connection = self._transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _PROBES.items():
            connection.setsockopt(socket.IPPROTO_TCP, option, value)
        self._door.lines.add(self)
        loop = asyncio.get_running_loop()
        self._late = loop.call_later(HELLO_SECONDS, self._no_hello)

    def data_received(self, data: bytes) -> None:
        self._pending += len(data)
        try:
            for message in self._decoder.feed(data):
                self._pending = 0
                if self.pod:
                    self._door.heard(self, message)
                elif not self._admitted(message):
                    self.hang_up()
                    return
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            log.warning("pod %s said what nobody understands: %r", self.pod or "?", error)
            self.hang_up()
        if self._pending > FRAME_LIMIT:
            log.warning("pod %s sent a frame of more than %d bytes", self.pod or "?", FRAME_LIMIT)
            self.hang_up()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._late is not None:
            self._late.cancel()
        self._door.lines.discard(self)
        self._transport = None
        if self.pod:
            self._door.lost(self)

    def _admitted(self, message: Message) -> bool:
        pool, pod, token = (str(message.get(name, "")) for name in ("pool", "pod", "token"))
        given = self._door.token_of(pool, pod)
        known = hmac.compare_digest((given or "").encode(), token.encode()) and bool(given)
        if message.get("v") != PROTOCOL or not known:
            log.info("refused at the door: pod %s of pool %s", pod, pool)
            return False
        if self._late is not None:
            self._late.cancel()
        self.pod = pod
        self._door.heard(self, message)
        return True

    def _no_hello(self) -> None:
        if not self.pod:
            self.hang_up()


class Door:
    """`heard` gets what admitted pods say, their greeting first; `lost` the end of a line."""

    def __init__(
        self,
        *,
        token_of: TokenOf,
        heard: Callable[[Line, Message], None],
        lost: Callable[[Line], None],
    ) -> None:
        self.token_of = token_of
        self.heard = heard
        self.lost = lost
        self.lines: set[Line] = set()
        self._server: asyncio.Server | None = None

    async def open(self, host: str, port: int) -> int:
        """The port, also when 0 was given for any. OSError when it can't be had."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Line(self), host or None, port)
        return self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        if self._server is None:
            return
        self._server.close()
        self.hang_up()
        await self._server.wait_closed()

    def hang_up(self) -> None:
        for line in list(self.lines):
            line.hang_up()
