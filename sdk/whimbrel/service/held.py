"""A digest of runs at their epochs, which the router and an agent each keep of what the agent is to
hold and compare with every heartbeat.

Free of order and changed in one step: the XOR of sha256("{execution}@{epoch}") over them all.
"""

from hashlib import sha256


class HeldDigest:
    def __init__(self) -> None:
        self._value = 0

    def flip(self, execution: str, epoch: int) -> None:
        """Puts it in, or takes it out again."""
        self._value ^= int.from_bytes(sha256(f"{execution}@{epoch}".encode()).digest())

    def __str__(self) -> str:
        return f"{self._value:064x}"
