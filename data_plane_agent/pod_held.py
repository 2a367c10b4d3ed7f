"""What the pod launcher knows of one attempt, from `start` until its end was taken.

Kept by `pods.py`, changed by it and by `pod_making.py`; everything in it can be rebuilt from the
cluster, but for an attempt whose pod is still to be made.
"""

from dataclasses import dataclass

from data_plane_agent.launcher import Attempt, AttemptKey
from data_plane_agent.pod_orders import Sender
from data_plane_agent.pod_sight import Sight


@dataclass(eq=False, slots=True)
class Held:
    """`attempt` is None for one found after the agent's restart. `obstacle` is why its pod can't be
    made now. Times are of the launcher's monotonic clock."""

    key: AttemptKey
    name: str
    input_digest: str
    since: float
    attempt: Attempt | None = None
    avoid: tuple[str, ...] = ()
    folder: str = ""
    uid: str = ""
    sight: Sight | None = None
    obstacle: str = ""
    stuck_on: str = ""
    stuck_since: float = 0.0
    silent_since: float = 0.0
    told_started: bool = False
    told_unplaceable: bool = False
    ending: bool = False
    cancelled: bool = False

    @property
    def sender(self) -> Sender | None:
        return Sender(self.key, self.folder) if self.folder else None

    def see(self, sight: Sight, now: float) -> None:
        self.sight = sight
        self.uid = sight.uid
        self.folder = sight.folder or self.folder
        self.avoid = sight.avoid
        self.obstacle = ""
        if sight.waiting != self.stuck_on:
            self.stuck_on, self.stuck_since = sight.waiting, now

    @property
    def no_room(self) -> str:
        """Why it is not on a node yet, in the cluster's words; "" when it is, or nobody knows."""
        if self.sight is None:
            return self.obstacle
        return "" if self.sight.over else self.sight.unschedulable


def held_of(sight: Sight, now: float) -> Held:
    held = Held(sight.key, sight.name, sight.input_digest, now)
    held.see(sight, now)
    return held
