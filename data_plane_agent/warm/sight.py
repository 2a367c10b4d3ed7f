"""What `pools.py` asks of a cluster, whoever it is: pods made, deleted, seen and gone.

Answered by `pods.py` over the API server.
"""

from dataclasses import dataclass
from typing import Protocol

from whimbrel.spec import Failure

from data_plane_agent.launcher import Attempt
from data_plane_agent.warm.pool import PoolKey


@dataclass(frozen=True, slots=True)
class Sighted:
    """A warm pod as the cluster tells of it. `failure` is why it is over, None while it is not."""

    name: str
    uid: str
    pool: PoolKey
    token: str
    host: str = ""
    over: bool = False
    deleting: bool = False
    failure: Failure | None = None


class NoPod(Exception):
    """It was not made. `passing`: another try may work."""

    def __init__(self, failure: Failure, *, passing: bool) -> None:
        super().__init__(failure.message)
        self.failure = failure
        self.passing = passing


class Watcher(Protocol):
    def listed(self) -> None: ...
    def seen(self, sighted: Sighted) -> None: ...
    def gone(self, name: str, failure: Failure | None) -> None: ...


class Pods(Protocol):
    def may_run(self, attempt: Attempt) -> bool:
        """Whether image and secrets are to be had here."""
        ...

    async def run(self, watcher: Watcher, *, port: int) -> None:
        """Tells of pods until it is cancelled; `port` is that of the agent's door."""
        ...

    async def create(self, pool: PoolKey, *, name: str, token: str) -> str:
        """Its uid. Raises NoPod."""
        ...

    async def delete(self, name: str, uid: str) -> None:
        """Never fails: who stays is deleted later, or ends by itself."""
        ...
