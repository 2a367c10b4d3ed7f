"""What warm pods are told about their cluster, and how many there may be.

Made by `compute.py` from the agent's settings; read by `pools.py`.
"""

import socket
from dataclasses import dataclass
from urllib.parse import urlsplit

from whimbrel.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class WarmSettings:
    """Times are in seconds. `host` and `port` are where the agent listens, `address` what pods
    dial."""

    host: str
    port: int
    address: str
    region: str
    most: int = 4
    """Pods of one pool."""
    idle_seconds: float = 300.0
    lost_seconds: float = 40.0
    """A pod that has not been heard for so long is taken for dead."""
    grace_seconds: float = 30.0
    orphan_seconds: float = 600.0
    """A pod whose agent is away ends after it."""


def own_address(server: str) -> str:
    """The address of this machine on the way to a URL's host: nothing is sent there."""
    parts = urlsplit(server)
    try:
        found = socket.getaddrinfo(parts.hostname, parts.port or 443, type=socket.SOCK_DGRAM)
        family, kind, _, _, address = found[0]
        with socket.socket(family, kind) as probe:
            probe.connect(address)
            return probe.getsockname()[0]
    except OSError as error:
        raise InvalidInput(
            f"no address of this machine leads to {server}: {error}",
            remedy="give --door-address, the host that warm pods are to dial",
        ) from error
