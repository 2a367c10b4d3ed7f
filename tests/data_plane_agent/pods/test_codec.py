"""An attempt as a manifest: names, restrictions, resources, secrets, what a platform team adds."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from whimbrel.errors import InvalidInput
from whimbrel.spec import Resources

from data_plane_agent.launcher import AttemptKey
from data_plane_agent.pods import capacity, template
from data_plane_agent.pods.codec import manifest, pod_name
from data_plane_agent.pods.orders import Order
from data_plane_agent.pods.quantities import number
from data_plane_agent.pods.sight import sight
from tests.data_plane_agent.pods.world import attempt, node, settings

ORDER = Order("https://store/order?signed", "f" * 64, "e" * 64, "x/n/1/7/abc")


def made(one: Any = None, **more: Any) -> dict[str, Any]:
    return manifest(one or attempt(), ORDER, settings(**more))


def container(pod: dict[str, Any]) -> dict[str, Any]:
    (only,) = pod["spec"]["containers"]
    return only


@given(st.text(min_size=1), st.text(min_size=1), st.integers(1, 99999), st.integers(1, 10**9))
def test_any_key_has_a_name_that_dns_takes(
    execution: str, node: str, attempt: int, epoch: int
) -> None:
    name = pod_name(AttemptKey(execution, node, attempt, epoch))
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", name)
    assert len(name) <= 63


def test_a_pod_is_restricted() -> None:
    pod = made()
    spec, task = pod["spec"], container(pod)
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] == 1000
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert task["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert (spec["automountServiceAccountToken"], spec["enableServiceLinks"]) == (False, False)
    assert spec["restartPolicy"] == "Never"
    assert {volume["name"]: set(volume) for volume in spec["volumes"]} == {
        "work": {"name", "emptyDir"},
        "tmp": {"name", "emptyDir"},
    }


def test_what_is_made_is_read_back() -> None:
    one = attempt("träumen", avoid=("n1",), limits=Resources(mem_bytes=1 << 20))
    pod = made(one)
    pod["metadata"]["uid"] = "u"
    found = sight(json.loads(json.dumps(pod)))
    assert found is not None
    assert (found.key, found.input_digest) == (one.key, one.input_digest)
    assert (found.order_digest, found.folder, found.avoid) == (ORDER.digest, ORDER.folder, ("n1",))
    assert (found.image, found.memory_limit) == ("task:1", 1 << 20)


def test_resources_and_their_defaults() -> None:
    assert container(made())["resources"] == {"requests": {"cpu": "100m", "memory": str(256 << 20)}}
    asked = Resources(cpu=0.5, mem_bytes=100, gpu=2, ephemeral_storage_bytes=7)
    most = Resources(cpu=2, mem_bytes=200, ephemeral_storage_bytes=9)
    resources = container(made(attempt(requests=asked, limits=most), gpu_resource="amd.com/gpu"))
    assert resources["resources"] == {
        "requests": {"cpu": "500m", "memory": "100", "ephemeral-storage": "7", "amd.com/gpu": "2"},
        "limits": {"cpu": "2000m", "memory": "200", "ephemeral-storage": "9", "amd.com/gpu": "2"},
    }
    pod = made(attempt(requests=asked, limits=most))
    assert capacity.requests_of(pod, gpu_resource="nvidia.com/gpu") == asked


def test_a_task_can_not_say_which_order_it_gets() -> None:
    one = attempt(environment={"WHIMBREL_ORDER": "http://elsewhere", "A": "b"})
    values = {one["name"]: one.get("value") for one in container(made(one))["env"]}
    assert values["WHIMBREL_ORDER"] == ORDER.url
    assert values["A"] == "b"


def test_secrets_are_references() -> None:
    pod = made(attempt(secrets=("api-token",)), secrets={"api-token": "team/token"})
    (one,) = [e for e in container(pod)["env"] if e["name"] == "WHIMBREL_SECRET_API_TOKEN"]
    assert one["valueFrom"] == {"secretKeyRef": {"name": "team", "key": "token"}}


def test_the_tasks_image_goes_before_the_clusters() -> None:
    assert container(made(attempt(container_image="a@sha256:b")))["image"] == "a@sha256:b"


def test_a_backstop_is_past_the_tasks_own_limit_or_there_is_none() -> None:
    assert made()["spec"]["activeDeadlineSeconds"] > 60 + 30
    assert "activeDeadlineSeconds" not in made(replace(attempt(), timeout_seconds=0.0))["spec"]


def test_a_platform_team_adds_but_does_not_replace() -> None:
    template = {
        "metadata": {"labels": {"team": "a", "whimbrel.dev/managed-by": "evil"}},
        "spec": {
            "nodeSelector": {"pool": "tasks"},
            "tolerations": [{"key": "spot", "operator": "Exists"}],
            "priorityClassName": "batch",
        },
    }
    pod = made(template=template)
    assert pod["metadata"]["labels"]["team"] == "a"
    assert pod["metadata"]["labels"]["whimbrel.dev/managed-by"] == "agent"
    assert pod["spec"]["nodeSelector"] == {"pool": "tasks"}
    assert {one["key"] for one in pod["spec"]["tolerations"]} == {
        "spot", "node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable",
    }  # fmt: skip
    assert pod["spec"]["priorityClassName"] == "batch"


def test_a_preference_of_theirs_stays_beside_ours() -> None:
    theirs = {"weight": 1, "preference": {"matchExpressions": []}}
    affinity = {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [theirs]}}
    pod = made(attempt(avoid=("n1",)), template={"spec": {"affinity": affinity}})
    both = pod["spec"]["affinity"]["nodeAffinity"][
        "preferredDuringSchedulingIgnoredDuringExecution"
    ]
    assert len(both) == 2
    again = made(attempt(avoid=("n1",)), template={"spec": {"affinity": affinity}})
    assert again == pod, "a template is not changed by its use"


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("spec: {hostNetwork: true}", "spec.hostNetwork"),
        ("spec: {containers: []}", "spec.containers"),
        ("spec: {securityContext: {}}", "spec.securityContext"),
        ("spec: {serviceAccountName: admin}", "spec.serviceAccountName"),
        ("metadata: {name: x}", "metadata.name"),
        ("status: {}", "status"),
        ("[1]", "table"),
        ("{", "read"),
    ],
)
def test_what_would_weaken_a_pod_is_refused_by_name(tmp_path: Path, text: str, field: str) -> None:
    path = tmp_path / "template.yaml"
    path.write_text(text)
    with pytest.raises(InvalidInput, match=field):
        template.load(path)


def test_pods_of_others_are_none_of_ours() -> None:
    assert sight({"metadata": {"name": "x", "labels": {"whimbrel.dev/attempt": "1"}}}) is None


@pytest.mark.parametrize(
    ("text", "value"),
    [("1500m", 1.5), ("2", 2), ("1Gi", 1 << 30), ("1k", 1000), (None, 0), ("odd", 0), ("1E", 1e18)],
)
def test_quantities(text: Any, value: float) -> None:
    assert number(text) == value


def test_capacity_is_of_nodes_that_take_pods() -> None:
    cordoned = node("n3", cpu="64")
    cordoned["spec"]["unschedulable"] = True
    nodes = [
        capacity.node_sight(one, gpu_resource="nvidia.com/gpu")
        for one in (node("n1"), node("n2", cpu="6"), cordoned, node("n4", ready="Unknown"))
    ]
    assert capacity.largest(nodes).cpu == 6
    assert capacity.free(nodes, [Resources(cpu=1)]).cpu == 9
    assert capacity.free(nodes, [Resources(cpu=100)]).cpu == 0
