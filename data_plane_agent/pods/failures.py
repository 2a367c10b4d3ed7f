"""Whose fault it is when a pod ends without an answer, or can't begin. Pure.

Conditions before exit codes, because a pod that was evicted also shows 137.

Called by `launcher.py`; the table follows Kubernetes' own words (pod disruption conditions, reasons
of container states, of the kubelet's evictions).
"""

from dataclasses import dataclass

from whimbrel.spec import Failure, Owner

from data_plane_agent.pods.settings import PodSettings
from data_plane_agent.pods.sight import IMAGE_WAITS, Sight

CREATE_SECONDS = 60.0
"""A container may fail to be made: a secret may come late. Shorter fails runs that a roll-out of
secrets delays, longer hides a wrong name."""
BAD_IMAGE_SECONDS = 90.0
"""An image that its registry says it has not, or won't give, may still be pushed: shorter fails a
run that a build overtakes, longer hides a wrong name."""

_DISRUPTIONS = {
    "PreemptionByScheduler": ("preempted", "a pod of higher priority needed its place"),
    "DeletionByTaintManager": ("node_lost", "its node is not to be used or not heard any more"),
    "EvictionByEvictionAPI": ("evicted", "it was evicted, as when a node is drained"),
    "DeletionByPodGC": ("node_lost", "its node is gone"),
    "TerminationByKubelet": ("evicted", "its node had to end it"),
}
_NODE_REFUSED = (
    "OutOfcpu", "OutOfmemory", "OutOfpods", "OutOfephemeral-storage", "NodeAffinity",
    "UnexpectedAdmissionError", "NodePorts", "Preempting",
)  # fmt: skip
_NO_SUCH_IMAGE = (
    "not found", "manifest unknown", "unauthorized", "denied", "authentication required",
    "no basic auth", "forbidden", "repository does not exist",
)  # fmt: skip
_OWN_EXCESS = (
    "exceeds the limit", "exceeds the total limit", "exceeded its local ephemeral storage limit",
)  # fmt: skip
"""Of an emptyDir, of all containers together, of one: the kubelet's eviction messages."""
_NEVER = ("InvalidImageName", "ErrImageNeverPull", "SignatureValidationFailed")
_MAKE_FAILS = ("CreateContainerConfigError", "CreateContainerError")
_START_FAILS = ("ContainerCannotRun", "StartError", "RunContainerError", "CannotRun")
_SIGKILL, _SIGTERM = 137, 143


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What the pod itself does not say. `node_silent_seconds` since its node was last ready, 0 =
    it is; `stuck_seconds` since it was first seen waiting for its present reason;
    `unstarted_seconds` since a node has it without starting it, 0 = it started or has no node;
    `image_said` is the newest error of a pull, which the kubelet does not repeat while it backs
    off."""

    node_silent_seconds: float = 0.0
    stuck_seconds: float = 0.0
    unstarted_seconds: float = 0.0
    image_said: str = ""


def ended(sight: Sight, *, asked: bool = False) -> Failure:
    """Of a pod that is over, or gone, and left no answer. `asked`: we asked it to save and to end,
    by deleting it."""
    failure = (
        _disrupted(sight)
        or _by_status(sight)
        or _by_container(sight)
        or _system("pod_lost", "its pod was deleted by somebody else")
    )
    if asked and failure.kind == "pod_lost":
        return _system("interrupted", "asked to move; it ended without an answer in its time")
    return failure


def given_up(sight: Sight, about: Circumstances, settings: PodSettings) -> Failure | None:
    """Of a pod that is there and will not end by itself; None = wait on."""
    if sight.over:
        return None
    silent = about.node_silent_seconds
    if silent and (sight.deleting_ns or silent > settings.lost_seconds):
        return _system("node_lost", f"node {sight.host} is not heard any more")
    said = f"{sight.waiting}: {sight.waiting_message}".strip(": ")
    if sight.waiting in _NEVER:
        return _config("image", f"its image can't be used: {said}")
    if sight.waiting in IMAGE_WAITS:
        said = f"{sight.waiting}: {about.image_said or sight.waiting_message}"
        known_bad = any(word in said.lower() for word in _NO_SUCH_IMAGE)
        limit = min(BAD_IMAGE_SECONDS, settings.image_seconds) if known_bad else (
            settings.image_seconds
        )  # fmt: skip
        if about.stuck_seconds > limit:
            return _config("image", f"its image can't be had: {said}")
    if sight.waiting in _MAKE_FAILS and about.stuck_seconds > CREATE_SECONDS:
        return _config("pod_config", f"its container can't be made: {said}")
    limited = sight.waiting in IMAGE_WAITS or sight.waiting in _MAKE_FAILS
    if about.unstarted_seconds > settings.start_seconds and not limited:
        return _system(
            "not_started",
            f"node {sight.host} has not started it in {settings.start_seconds:.0f} s: {said}"
            .rstrip(": "),
        )  # fmt: skip
    return None


def _disrupted(sight: Sight) -> Failure | None:
    if not sight.disrupted:
        return None
    if sight.disrupted == "TerminationByKubelet" and (failure := _by_status(sight)):
        return failure
    kind, why = _DISRUPTIONS.get(sight.disrupted, ("evicted", sight.disrupted))
    where = f" (node {sight.host})" if sight.host else ""
    return _system(kind, f"{why}{where}: {sight.message}".rstrip(": "))


def _evicted(sight: Sight) -> Failure | None:
    """The kubelet's eviction for the pod's own excess of disk is the author's; for its node's
    pressure it is not."""
    if any(words in sight.message for words in _OWN_EXCESS):
        return _user("disk", f"it wrote more than it may: {sight.message}")
    return None


def _by_status(sight: Sight) -> Failure | None:
    reason, text = sight.reason, sight.message
    if reason == "Evicted":
        return _evicted(sight) or _system("evicted", f"its node ran short: {text}")
    if reason == "DeadlineExceeded" and not sight.started_ns:
        return _system("not_started", f"node {sight.host} did not start it before its deadline")
    if reason == "DeadlineExceeded":
        return _user("timeout", "it took longer than its time limit")
    if reason in ("NodeShutdown", "Shutdown", "Terminated"):
        return _system("shutdown", f"node {sight.host} was shut down")
    if reason == "NodeLost":
        return _system("node_lost", f"node {sight.host} is not heard any more")
    if reason in _NODE_REFUSED or reason.startswith("OutOf"):
        return _system("evicted", f"node {sight.host} did not take it: {reason} {text}".strip())
    return None


def _by_container(sight: Sight) -> Failure | None:
    end = sight.ended
    if end is None:
        return None
    if end.reason == "OOMKilled" and not sight.memory_limit:
        return _system("evicted", f"node {sight.host} ran out of memory")
    if end.reason == "OOMKilled":
        return _user(
            "oom",
            f"it needed more memory than its limit of {sight.memory_limit / 2**20:.0f} MiB: ask "
            "for more with limits=Resources(mem=...) or hold less at a time",
        )
    if end.reason in _START_FAILS or end.exit_code in (126, 127, 128):
        return _config("image", f"its image can't run whimbrel: {end.reason} {end.message}".strip())
    if sight.deleting_ns and end.exit_code in (_SIGKILL, _SIGTERM):
        return _system("pod_lost", "its pod was deleted by somebody else")
    if end.exit_code in (_SIGKILL, _SIGTERM):
        return _system("worker_lost", f"its node killed it (status {end.exit_code})")
    if end.exit_code == 0:
        return _config("image", "its pod ended without an answer: does its image hold whimbrel?")
    said = f": {end.message.strip().splitlines()[-1]}" if end.message.strip() else ""
    return _user("exited", f"its process ended with status {end.exit_code}{said}"[:500])


def _user(kind: str, message: str) -> Failure:
    return Failure(Owner.USER, kind, message)


def _system(kind: str, message: str) -> Failure:
    return Failure(Owner.SYSTEM, kind, message)


def _config(kind: str, message: str) -> Failure:
    return Failure(Owner.CONFIG, kind, message)
