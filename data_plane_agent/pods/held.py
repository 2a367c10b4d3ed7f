"""What the pod launcher knows of one attempt, from `start` until its end was taken.

Kept by `launcher.py`, changed by it and by `making.py`; everything in it can be rebuilt from the
cluster, but for an attempt whose pod is still to be made.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from whimbrel.spec import Resources

from data_plane_agent.launcher import Attempt, AttemptKey, Unplaceable
from data_plane_agent.pods.failures import Circumstances
from data_plane_agent.pods.orders import Sender
from data_plane_agent.pods.sight import Sight

UNSHOWN_SECONDS = 30.0
"""A pod that was made and that no watch shows is asked for. Shorter asks while a watch is broken,
longer leaves an attempt waiting whose pod was deleted meanwhile."""


@dataclass(eq=False, slots=True)
class Held:
    """`attempt` is None for one found after the agent's restart. `unsure`: a create had no answer,
    there may be a pod. `shown`: the watch has told of its pod. `gone`: its pod is off the list.
    `obstacle` is why the pod can't be made now. `since` when it waits for its pod, then for a node;
    `placed_since` for its start. Times are of the launcher's monotonic clock, but for `until_ns`:
    the latest deadline (CLOCK_BOOTTIME) that an exclusive one was told, 0 = none; None: an earlier
    agent may have told it one."""

    key: AttemptKey
    name: str
    input_digest: str
    since: float
    attempt: Attempt | None = None
    avoid: tuple[str, ...] = ()
    folder: str = ""
    uid: str = ""
    unsure: bool = False
    sight: Sight | None = None
    shown: bool = False
    placed_since: float = 0.0
    made_at: float = 0.0
    requests: Resources | None = None
    obstacle: str = ""
    stuck_on: str = ""
    stuck_since: float = 0.0
    image_said: str = ""
    silent_since: float = 0.0
    told_started: bool = False
    told_unplaceable: bool = False
    ending: bool = False
    cancelled: bool = False
    quiesced: bool = False
    exclusive: bool = False
    renewable: bool = False
    until_ns: int | None = 0
    gone: bool = False

    @property
    def sender(self) -> Sender | None:
        return Sender(self.key, self.folder) if self.folder else None

    def is_of(self, sight: Sight) -> bool:
        """Whether this pod is the attempt's: not one of the same name that is on its way out."""
        if self.uid:
            return self.uid == sight.uid
        return bool(self.folder) and self.folder == sight.folder

    def see(self, sight: Sight, now: float) -> None:
        if self.sight is None:
            self.since = now
        if sight.host and not (self.sight is not None and self.sight.host):
            self.placed_since = now
        self.sight = sight
        self.uid = sight.uid
        self.folder = sight.folder or self.folder
        self.avoid = sight.avoid
        self.obstacle = ""
        if sight.stuck_on != self.stuck_on:
            self.stuck_on, self.stuck_since = sight.stuck_on, now
            self.image_said = ""
        if sight.waiting == "ErrImagePull":
            self.image_said = sight.waiting_message

    @property
    def no_room(self) -> str:
        """Why it is not on a node yet, in the cluster's words if it has any; "" when it is."""
        if self.sight is None:
            return self.obstacle
        if self.sight.over or self.sight.host:
            return ""
        return self.sight.unschedulable or "no scheduler took it"

    def placing(self, now: float, *, well: bool, patience: float) -> Unplaceable | None:
        """What is to be told of its place: that it has had none for longer than `patience`, or has
        one after all. A pod shown by a cluster that is not well may run by now."""
        if self.sight is not None and (self.sight.over or self.sight.host):
            told, self.told_unplaceable = self.told_unplaceable, False
            return Unplaceable(self.key, "") if told else None
        known = well or self.sight is None
        if not known or not self.no_room or self.told_unplaceable or now - self.since <= patience:
            return None
        self.told_unplaceable = True
        return Unplaceable(self.key, self.no_room)

    def unshown(self, now: float) -> bool:
        """Once in a while, until the watch has shown the pod."""
        asks = not self.shown and now - self.made_at > UNSHOWN_SECONDS
        self.made_at = now if asks else self.made_at
        return asks

    @property
    def placed(self) -> bool:
        """A node has it, and has not started it."""
        return self.sight is not None and bool(self.sight.host) and not self.sight.started_ns

    def begin_patience(self, now: float) -> None:
        """While nobody can tell how it is, no time passes that counts against it."""
        self.silent_since = 0.0
        self.stuck_since = self.placed_since = now
        if self.sight is not None:
            self.since = now

    def circumstances(self, now: float, *, silent: bool) -> Circumstances:
        """`silent`: its node is not heard at the moment."""
        self.silent_since = (self.silent_since or now) if silent else 0.0
        return Circumstances(
            # Never 0 where it is silent: 0 means that it is not.
            node_silent_seconds=now - self.silent_since + 0.001 if silent else 0.0,
            stuck_seconds=now - self.stuck_since if self.stuck_on else 0.0,
            unstarted_seconds=now - self.placed_since if self.placed else 0.0,
            image_said=self.image_said,
        )


def load(held: Iterable[Held]) -> tuple[list[Resources], int, int]:
    """What those that are not over ask for, how many run, how many do not yet."""
    asked: list[Resources] = []
    running = queued = 0
    for one in held:
        if one.sight is not None and one.sight.over:
            continue
        if one.sight is not None and one.sight.running:
            running += 1
        else:
            queued += 1
        if one.requests is not None:
            asked.append(one.requests)
    return asked, running, queued


def held_of(sight: Sight, now: float) -> Held:
    held = Held(sight.key, sight.name, sight.input_digest, now)
    held.exclusive, held.until_ns = sight.exclusive, None
    held.see(sight, now)
    held.shown = True
    return held
