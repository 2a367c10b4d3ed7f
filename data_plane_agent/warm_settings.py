"""What warm pods are told about their cluster, and how many there may be.

Made by `compute.py` from the agent's settings; read by `warm.py`.
"""

from dataclasses import dataclass


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
    orphan_seconds: float = 60.0
    """A pod whose agent is away ends after it."""
