"""Names and manifests for whatever an author calls things: one pod an attempt, never another's,
and nothing that Pod Security would refuse."""

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from whimbrel.spec import Resources

from data_plane_agent.launcher import AttemptKey
from data_plane_agent.pods.codec import manifest, pod_name, selector
from data_plane_agent.pods.orders import Order
from tests.data_plane_agent.pods.scene import SETTINGS, attempt

ORDER = Order("https://store/order?signed", "5a" * 32, "order-digest", "run/n/1/1/ab")
DNS = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
LABEL = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?")
KEYS = st.builds(
    AttemptKey,
    st.text(min_size=1, max_size=80),
    st.text(min_size=1, max_size=120),
    st.integers(0, 10**5),
    st.integers(0, 10**6),
)


@given(KEYS)
def test_names_are_names(key: AttemptKey) -> None:
    name = pod_name(key)
    assert len(name) <= 63
    assert DNS.fullmatch(name)
    assert pod_name(replace(key)) == name


@given(KEYS, KEYS)
def test_names_are_of_one_attempt(one: AttemptKey, other: AttemptKey) -> None:
    assert (one == other) == (pod_name(one) == pod_name(other))
    sibling = replace(one, node=other.node)
    assert (one == sibling) == (pod_name(one) == pod_name(sibling))


@pytest.mark.parametrize(
    ("one", "other"),
    [("a b", "a-b"), ("A", "a"), ("é", "ü"), ("x" * 30 + "1", "x" * 30 + "2"), ("a[1]", "a-1")],
)
def test_nodes_written_alike(one: str, other: str) -> None:
    assert pod_name(AttemptKey("x", one, 1, 1)) != pod_name(AttemptKey("x", other, 1, 1))


@given(KEYS)
def test_every_pod_is_restricted(key: AttemptKey) -> None:
    """Field by field, and nothing that speaks to the API server."""
    made = manifest(replace(attempt(), key=key), ORDER, SETTINGS)
    spec, metadata = made["spec"], made["metadata"]
    assert all(LABEL.fullmatch(v) and len(v) <= 63 for v in metadata["labels"].values())
    assert all(isinstance(v, str) for v in metadata["annotations"].values())
    assert spec["automountServiceAccountToken"] is False
    assert spec["restartPolicy"] == "Never"
    security = spec["securityContext"]
    assert security["runAsNonRoot"] is True
    assert security["runAsUser"] > 0
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    (container,) = spec["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {kind for volume in spec["volumes"] for kind in volume if kind != "name"} == {"emptyDir"}
    assert not {"hostNetwork", "hostPID", "hostIPC", "serviceAccountName"} & spec.keys()


def test_an_agent_selects_its_own() -> None:
    labels = manifest(attempt(), ORDER, SETTINGS)["metadata"]["labels"]
    asked = dict(part.split("=") for part in selector(SETTINGS.cluster).split(","))
    assert asked.items() <= labels.items()
    assert not dict(p.split("=") for p in selector("beta").split(",")).items() <= labels.items()


def test_no_limit_is_below_its_request() -> None:
    """The API server would refuse the pod."""
    one = attempt(requests=Resources(cpu=2), limits=Resources(cpu=1))
    found = manifest(one, ORDER, SETTINGS)["spec"]["containers"][0]["resources"]
    assert (found["requests"]["cpu"], found["limits"]["cpu"]) == ("2000m", "2000m")


def test_hosts_to_avoid() -> None:
    made = manifest(attempt(avoid=("a", "b", "c", "d")), ORDER, SETTINGS)
    (preferred,) = made["spec"]["affinity"]["nodeAffinity"].values()
    (expression,) = preferred[0]["preference"]["matchExpressions"]
    assert expression["operator"] == "NotIn"
    assert expression["values"] == ["a", "b", "c"]
    assert "affinity" not in manifest(attempt(), ORDER, SETTINGS)["spec"]
