"""A warm pod as an object of the cluster: its manifest, and what is read from it again. Pure.

Called by `pods.py`. It is the pod of an attempt (`pods/codec.py`) in all that concerns
security, resources and the platform team's template; only what it is told differs.
"""

import json

from whimbrel.spec import Failure, Interface, Owner, TaskSpec

from data_plane_agent.launcher import Attempt, AttemptKey
from data_plane_agent.pods import failures
from data_plane_agent.pods.api_errors import Object
from data_plane_agent.pods.api_json import part
from data_plane_agent.pods.codec import PREFIX, manifest, selector
from data_plane_agent.pods.orders import Order
from data_plane_agent.pods.settings import PodSettings
from data_plane_agent.pods.sight import sight
from data_plane_agent.warm.pool import PoolKey
from data_plane_agent.warm.sight import Sighted

_POOL, _TOKEN = "warm-pool", "WHIMBREL_WARM_TOKEN"
_ORDER = {"WHIMBREL_ORDER", "WHIMBREL_ORDER_SHA256"}
_OF_ATTEMPTS = {
    "execution", "node", "input-digest", "order-digest", "order-folder", "avoid", "attempt",
    "epoch",
}  # fmt: skip


def warm_selector(cluster: str) -> str:
    return f"{selector(cluster)},{PREFIX}warm"


def warm_manifest(
    pool: PoolKey, *, name: str, token: str, door: str, orphan_seconds: float, settings: PodSettings
) -> Object:
    task = TaskSpec(
        "warm",
        "warm:warm",
        pool.bundle,
        Interface(),
        environment=dict(pool.environment),
        container_image=pool.image,
        secrets=pool.secrets,
        warm=True,
    )
    nobody = AttemptKey(pool.id, "warm", 0, 0)
    attempt = Attempt(
        nobody, task, {}, "", pool.project, pool.domain, pool.requests, pool.limits, 0.0
    )
    made = manifest(attempt, Order("", "", "", ""), settings)
    metadata, container = made["metadata"], made["spec"]["containers"][0]
    for field in ("labels", "annotations"):
        for word in _OF_ATTEMPTS:
            metadata[field].pop(f"{PREFIX}{word}", None)
    metadata["name"] = name
    metadata["labels"][f"{PREFIX}warm"] = pool.id
    metadata["annotations"][f"{PREFIX}{_POOL}"] = pool.text
    container["command"] = ["python", "-P", "-m", "whimbrel.runtime_warm"]
    seat = {
        "door": door,
        "pool": pool.id,
        "pod": name,
        "empty": ["/tmp"],
        "orphan": orphan_seconds,
    }
    kept = [one for one in container["env"] if one["name"] not in _ORDER]
    told = {"WHIMBREL_WARM": json.dumps(seat), _TOKEN: token}
    container["env"] = [
        *kept,
        *({"name": word, "value": value} for word, value in told.items()),
    ]
    return made


def sighted(pod: Object) -> Sighted | None:
    """None when it is no warm pod of ours, or can't be understood."""
    metadata = part(pod, "metadata")
    notes = part(metadata, "annotations")
    try:
        pool = PoolKey.parse(notes[f"{PREFIX}{_POOL}"])
    except (KeyError, ValueError, TypeError):
        return None
    seen = sight(_as_attempt(pod))
    if seen is None:
        return None
    failure = failures.ended(seen) if seen.over else None
    if failure is not None and seen.ended is not None and seen.ended.exit_code == 0:
        failure = Failure(Owner.SYSTEM, "pod_lost", "its warm pod ended")  # as it may, when idle
    return Sighted(
        name=seen.name,
        uid=seen.uid,
        pool=pool,
        token=_token(pod),
        host=seen.host,
        over=seen.over,
        deleting=seen.deleting_ns != 0,
        failure=failure,
    )


def gone(pod: Object) -> Failure:
    seen = sight(_as_attempt(pod))
    if seen is None:
        return Failure(Owner.SYSTEM, "pod_lost", "its warm pod is gone")
    return failures.ended(seen)


def _as_attempt(pod: Object) -> Object:
    """What judges pods of attempts can then judge it."""
    metadata = part(pod, "metadata")
    notes = {f"{PREFIX}execution": "warm", f"{PREFIX}node": "warm"}
    numbers = {f"{PREFIX}attempt": "0", f"{PREFIX}epoch": "0"}
    return {
        **pod,
        "metadata": {
            **metadata,
            "annotations": {**part(metadata, "annotations"), **notes},
            "labels": {**part(metadata, "labels"), **numbers},
        },
    }


def _token(pod: Object) -> str:
    containers: list[Object] = part(pod, "spec").get("containers") or []
    for container in containers:
        environment: list[Object] = container.get("env") or []
        for one in environment:
            if one.get("name") == _TOKEN:
                return str(one.get("value") or "")
    return ""
