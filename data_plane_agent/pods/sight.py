"""A pod as the API server tells of it, reduced to what decides about its attempt. Pure.

Called by `launcher.py` for every change; judged by `failures.py`. Fields that are missing or odd
read as absent: an object of a newer API server must not stop the agent.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from data_plane_agent.launcher import AttemptKey
from data_plane_agent.pods.api_errors import Object
from data_plane_agent.pods.api_json import part, parts, text
from data_plane_agent.pods.codec import CONTAINER, PREFIX
from data_plane_agent.pods.quantities import number

IMAGE_WAITS = ("ErrImagePull", "ImagePullBackOff", "RegistryUnavailable", "ImageInspectError")
"""These take turns while an image does not come."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How the container's process ended."""

    exit_code: int
    reason: str
    message: str
    started_ns: int
    ended_ns: int


@dataclass(frozen=True, slots=True)
class Sight:
    """`phase` is Kubernetes' own word. `disrupted` is the reason of a DisruptionTarget condition,
    `waiting` that of a container that can't start. Times are Unix ns, 0 = not yet; `memory_limit`
    is in bytes, 0 = none."""

    name: str
    uid: str
    key: AttemptKey
    input_digest: str
    order_digest: str
    folder: str
    exclusive: bool
    avoid: tuple[str, ...]
    image: str
    memory_limit: int
    host: str
    phase: str
    created_ns: int
    deleting_ns: int
    unschedulable: str
    waiting: str
    waiting_message: str
    started_ns: int
    ended: Ended | None
    disrupted: str
    reason: str
    message: str

    @property
    def over(self) -> bool:
        return self.ended is not None or self.phase in ("Succeeded", "Failed")

    @property
    def stopped(self) -> bool:
        """Over, as its node tells: a phase alone may be the word of a cluster that lost it."""
        return self.ended is not None or (self.over and not self.started_ns)

    @property
    def running(self) -> bool:
        return self.started_ns != 0 and not self.over

    @property
    def stuck_on(self) -> str:
        """What keeps it from starting, one word for what takes turns; "" = nothing."""
        return "image" if self.waiting in IMAGE_WAITS else self.waiting


def sight(pod: Object) -> Sight | None:
    """None when it is none of ours, or names no attempt."""
    metadata, status = part(pod, "metadata"), part(pod, "status")
    notes, labels = part(metadata, "annotations"), part(metadata, "labels")
    try:
        key = AttemptKey(
            str(notes[f"{PREFIX}execution"]),
            str(notes[f"{PREFIX}node"]),
            int(labels[f"{PREFIX}attempt"]),
            int(labels[f"{PREFIX}epoch"]),
        )
    except (KeyError, ValueError, TypeError):
        return None
    state = part(_container(parts(status, "containerStatuses")), "state")
    made_of = _container(parts(part(pod, "spec"), "containers"))
    conditions = {text(one, "type"): one for one in parts(status, "conditions")}
    limits = part(part(made_of, "resources"), "limits")
    ended = _ended(part(state, "terminated"))
    started = nanoseconds(part(state, "running").get("startedAt"))
    scheduled: Object = conditions.get("PodScheduled") or {}
    target: Object = conditions.get("DisruptionTarget") or {}
    hit = target.get("status") == "True"
    return Sight(
        name=text(metadata, "name"),
        uid=text(metadata, "uid"),
        key=key,
        input_digest=text(notes, f"{PREFIX}input-digest"),
        order_digest=text(notes, f"{PREFIX}order-digest"),
        folder=text(notes, f"{PREFIX}order-folder"),
        exclusive=text(notes, f"{PREFIX}exclusive") == "true",
        avoid=tuple(filter(None, text(notes, f"{PREFIX}avoid").split(","))),
        image=str(made_of.get("image") or ""),
        memory_limit=int(number(limits.get("memory"))),
        host=text(part(pod, "spec"), "nodeName"),
        phase=text(status, "phase") or "Pending",
        created_ns=nanoseconds(metadata.get("creationTimestamp")),
        deleting_ns=nanoseconds(metadata.get("deletionTimestamp")),
        unschedulable=_unplaced(scheduled),
        waiting=str(part(state, "waiting").get("reason") or ""),
        waiting_message=str(part(state, "waiting").get("message") or ""),
        started_ns=started or (ended.started_ns if ended else 0),
        ended=ended,
        disrupted=str(target.get("reason") or "unknown") if hit else "",
        reason=str(status.get("reason") or ""),
        message=str(status.get("message") or target.get("message") or ""),
    )


def _container(found: list[Object]) -> Object:
    nothing: Object = {}
    return next((one for one in found if one.get("name") == CONTAINER), nothing)


def _unplaced(scheduled: Object) -> str:
    """Also of a pod that a gate holds back, not only of one that no node has room for."""
    if scheduled.get("status") != "False":
        return ""
    reason, message = (str(scheduled.get(name) or "") for name in ("reason", "message"))
    if reason == "Unschedulable":
        return message or "no node has room"
    return f"{reason}: {message}".strip(": ") or "no node was chosen"


def _ended(state: Object) -> Ended | None:
    if not state:
        return None
    return Ended(
        exit_code=code if isinstance(code := state.get("exitCode"), int) else 0,
        reason=str(state.get("reason") or ""),
        message=str(state.get("message") or ""),
        started_ns=nanoseconds(state.get("startedAt")),
        ended_ns=nanoseconds(state.get("finishedAt")),
    )


def nanoseconds(text: Any) -> int:
    """Of RFC 3339, 0 when it is none."""
    if not isinstance(text, str):
        return 0
    try:
        return int(datetime.fromisoformat(text).timestamp() * 1e9)
    except ValueError:
        return 0
