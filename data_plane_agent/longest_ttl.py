"""The longest time to live of a session under which an exclusive attempt of this cluster may still
run, kept over the agent's own restarts.

Read by `__main__` for the guard, which writes it before such a session starts anything: a next
agent that is given a shorter one waits for the longer one's work.
"""

import os
from pathlib import Path

from whimbrel.errors import Refused, Unreachable


class LongestTtl:
    def __init__(self, file: Path) -> None:
        self._file = file

    def read(self) -> int:
        """Nanoseconds, 0 = none. Refused when it can't be known."""
        try:
            return int(self._file.read_text()) if self._file.exists() else 0
        except (OSError, ValueError) as error:
            raise Refused(
                f"{self._file} can't be read: {error}",
                remedy="remove it once no exclusive task of this cluster runs any more",
            ) from error

    def write(self, ttl_ns: int) -> None:
        """Unreachable while the disk does not take it."""
        fresh = self._file.with_suffix(".new")
        try:
            with fresh.open("w") as file:
                file.write(str(ttl_ns))
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(self._file)
        except OSError as error:
            raise Unreachable(f"{self._file} can't be written: {error}") from error
