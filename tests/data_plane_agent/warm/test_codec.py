"""The manifest of a warm pod, and what is read from it again."""

import json
from typing import Any

from whimbrel.spec import Owner, Resources

from data_plane_agent.pods.settings import PodSettings
from data_plane_agent.pods.sight import sight
from data_plane_agent.warm.codec import gone, sighted, warm_manifest, warm_selector
from data_plane_agent.warm.pool import PoolKey

POOL = PoolKey(
    "b" * 64,
    "p",
    "d",
    (("COLOUR", "red"),),
    "",
    ("token",),
    Resources(cpu=0.5),
    Resources(mem_bytes=2**28),
)
SETTINGS = PodSettings("alpha", "us-east", "whimbrel", "task:1", secrets={"token": "team/key"})


def made(**status: Any) -> dict[str, Any]:
    pod = warm_manifest(
        POOL, name="warm-1", token="se", door="10.0.0.1:8475", orphan_seconds=60, settings=SETTINGS
    )
    pod["metadata"]["uid"] = "u1"
    pod["spec"]["nodeName"] = "node-1"
    pod["status"] = {"phase": "Running", **status}
    return pod


def ended(code: int, reason: str = "") -> dict[str, Any]:
    state = {"terminated": {"exitCode": code, "reason": reason}}
    return made(phase="Failed", containerStatuses=[{"name": "task", "state": state}])


def test_it_is_as_restricted_as_any_pod_and_told_where_to_dial() -> None:
    pod = made()
    (container,) = pod["spec"]["containers"]
    assert container["command"] == ["python", "-P", "-m", "whimbrel.runtime_warm"]
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert pod["spec"]["securityContext"]["runAsNonRoot"]
    assert pod["spec"]["automountServiceAccountToken"] is False
    assert container["resources"]["requests"]["cpu"] == "500m"
    env = {one["name"]: one for one in container["env"]}
    assert json.loads(env["WHIMBREL_WARM"]["value"]) == {
        "door": "10.0.0.1:8475",
        "pool": POOL.id,
        "pod": "warm-1",
        "empty": ["/tmp"],
        "orphan": 60,
    }
    assert env["WHIMBREL_WARM_TOKEN"]["value"] == "se"
    assert env["COLOUR"]["value"] == "red"
    assert env["WHIMBREL_SECRET_TOKEN"]["valueFrom"]["secretKeyRef"]["name"] == "team"
    assert "WHIMBREL_ORDER" not in env


def test_the_pods_of_attempts_pass_over_it_and_the_same_policies_hold() -> None:
    pod = made()
    assert sight(pod) is None
    labels = pod["metadata"]["labels"]
    assert labels["whimbrel.dev/managed-by"] == "agent"
    assert labels["whimbrel.dev/warm"] == POOL.id
    assert warm_selector("alpha").endswith("whimbrel.dev/cluster=alpha,whimbrel.dev/warm")


def test_all_that_an_agent_has_to_know_after_a_restart_is_in_it() -> None:
    seen = sighted(made())
    assert seen is not None
    assert (seen.name, seen.uid, seen.token, seen.host) == ("warm-1", "u1", "se", "node-1")
    assert seen.pool == POOL
    assert (seen.over, seen.deleting, seen.failure) == (False, False, None)


def test_what_is_no_warm_pod_of_ours_is_passed_over() -> None:
    pod = made()
    pod["metadata"]["annotations"]["whimbrel.dev/warm-pool"] = "no json"
    assert sighted(pod) is None
    pod["metadata"]["annotations"] = {}
    assert sighted(pod) is None


def test_why_it_is_over() -> None:
    memory = sighted(ended(137, "OOMKilled"))
    assert memory is not None
    assert memory.over
    assert memory.failure is not None
    assert (memory.failure.owner, memory.failure.kind) == (Owner.USER, "oom")
    idle = sighted(ended(0))
    assert idle is not None
    assert idle.failure is not None
    assert (idle.failure.owner, idle.failure.kind) == (Owner.SYSTEM, "pod_lost")
    assert gone(made()).owner is Owner.SYSTEM
