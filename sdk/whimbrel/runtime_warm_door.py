"""The way from a warm pod to its agent's door: dialled again and again, told who is there.

Used by process 1 (`runtime_warm.py`), which decides what is said; the other end is
`data_plane_agent/warm/door.py`. Half a line is noticed by TCP's own probes.
"""

import json
import os
import random
import socket
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from whimbrel.runtime_frames import Decoder, Message, encode

PROTOCOL = 1
DIAL_SECONDS = 2.0
"""To open a connection. Process 1 does nothing else meanwhile: longer delays the time limit."""
SEND_SECONDS = 10.0
"""For an agent that reads nothing. Shorter loses a connection while the agent is busy."""
LONGEST_PAUSE = 2.0
_PROBES = {socket.TCP_KEEPIDLE: 15, socket.TCP_KEEPINTVL: 5, socket.TCP_KEEPCNT: 3}


@dataclass(frozen=True, slots=True)
class Seat:
    """What a warm pod is told in its environment. `empty` are folders to be emptied between tasks;
    `orphan_seconds` it waits for an agent to come back."""

    host: str
    port: int
    pool: str
    pod: str
    token: str
    empty: tuple[Path, ...]
    orphan_seconds: float

    @classmethod
    def take(cls) -> "Seat":
        """Out of the environment, where user code would find it. ValueError when it is not
        there."""
        text, token = (
            os.environ.pop(name, "") for name in ("WHIMBREL_WARM", "WHIMBREL_WARM_TOKEN")
        )
        try:
            fields = json.loads(text)
            host, _, port = fields["door"].rpartition(":")
            empty = tuple(Path(folder) for folder in fields["empty"])
            orphan = float(fields["orphan"])
            return cls(
                host.strip("[]"), int(port), fields["pool"], fields["pod"], token, empty, orphan
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"WHIMBREL_WARM is not set as an agent does it: {error!r}") from error


class Door:
    """`away_since` (monotonic seconds) is None while the agent has bidden welcome."""

    def __init__(self, seat: Seat) -> None:
        self.seat = seat
        self.away_since: float | None = time.monotonic()
        self._connection: socket.socket | None = None
        self._decoder = Decoder()
        self._dial_at = 0.0
        self._pause = 0.1

    @property
    def connection(self) -> socket.socket | None:
        return self._connection

    @property
    def wait(self) -> float:
        """Seconds until the next try."""
        return max(0.0, self._dial_at - time.monotonic())

    def dial(self, about: Message) -> bool:
        """One try, if it is time for one. `about` is what process 1 has to say of itself."""
        if self.wait:
            return False
        self._dial_at = time.monotonic() + self._pause * random.uniform(0.5, 1.0)
        self._pause = min(self._pause * 2, LONGEST_PAUSE)
        with suppress(OSError):
            address = (self.seat.host, self.seat.port)
            self._connection = socket.create_connection(address, timeout=DIAL_SECONDS)
            self._connection.settimeout(SEND_SECONDS)
            self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in _PROBES.items():
                self._connection.setsockopt(socket.IPPROTO_TCP, option, value)
            self._decoder = Decoder()
            seat = self.seat
            who = {"t": "warm", "v": PROTOCOL, "pool": seat.pool, "pod": seat.pod}
            self.send([{**who, "token": seat.token, **about}])
        return self._connection is not None

    def welcomed(self) -> None:
        self.away_since = None
        self._pause = 0.1

    def receive(self) -> Iterable[Message]:
        """What has come. Nothing, and no connection any more, when the agent is gone."""
        if self._connection is None:
            return []
        try:
            data = self._connection.recv(262144)
        except OSError:
            data = b""
        if not data:
            self.lost()
            return []
        return list(self._decoder.feed(data))

    def send(self, messages: list[Message]) -> None:
        if self._connection is None or not messages:
            return
        try:
            self._connection.sendall(encode(messages))
        except OSError:
            self.lost()

    def lost(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None
        if self.away_since is None:
            self.away_since = time.monotonic()
