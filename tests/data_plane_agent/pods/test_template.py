"""What a platform team may add to pods, and what no template can take away."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from whimbrel.errors import InvalidInput

from data_plane_agent.pods.codec import manifest
from data_plane_agent.pods.orders import Order
from data_plane_agent.pods.template import SPEC, load
from tests.data_plane_agent.pods.scene import SETTINGS, attempt

ORDER = Order("https://store/order?signed", "0" * 64, "order-digest", "folder")


def loaded(folder: Path, template: Any) -> dict[str, Any]:
    path = folder / "template.yaml"
    path.write_text(template if isinstance(template, str) else yaml.safe_dump(template))
    return load(path)


def made(folder: Path, template: Any, **more: Any) -> dict[str, Any]:
    settings = replace(SETTINGS, template=loaded(folder, template))
    return manifest(attempt(**more), ORDER, settings)


@pytest.mark.parametrize(
    ("template", "named"),
    [
        ({"spec": {"containers": []}}, "spec.containers"),
        ({"spec": {"volumes": []}}, "spec.volumes"),
        ({"spec": {"hostNetwork": True}}, "spec.hostNetwork"),
        ({"spec": {"hostPID": True}}, "spec.hostPID"),
        ({"spec": {"securityContext": {}}}, "spec.securityContext"),
        ({"spec": {"serviceAccountName": "admin"}}, "spec.serviceAccountName"),
        ({"spec": {"automountServiceAccountToken": True}}, "spec.automountServiceAccountToken"),
        ({"spec": {"initContainers": []}}, "spec.initContainers"),
        ({"spec": {"restartPolicy": "Always"}}, "spec.restartPolicy"),
        ({"metadata": {"name": "x"}}, "metadata.name"),
        ({"metadata": {"namespace": "kube-system"}}, "metadata.namespace"),
        ({"metadata": {"ownerReferences": []}}, "metadata.ownerReferences"),
        ({"status": {}}, "status"),
        ({"spec": []}, None),
        ({"spec": ["a"]}, "spec must be a table"),
        ("- a\n", "a table is needed"),
        ("{", "can't be read"),
    ],
)
def test_what_may_not_be_there(tmp_path: Path, template: Any, named: str | None) -> None:
    if named is None:
        loaded(tmp_path, template)
        return
    with pytest.raises(InvalidInput) as error:
        loaded(tmp_path, template)
    assert named in str(error.value)
    assert str(tmp_path) in str(error.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="can't be read"):
        load(tmp_path / "none.yaml")


def test_nothing_is_fine(tmp_path: Path) -> None:
    assert loaded(tmp_path, "") == {}
    plain = manifest(attempt(), ORDER, SETTINGS)
    assert made(tmp_path, "") == plain
    assert made(tmp_path, {"apiVersion": "v1", "kind": "Pod", "metadata": None}) == plain


def test_what_is_added(tmp_path: Path) -> None:
    taint = {"key": "batch", "operator": "Exists"}
    found = made(tmp_path, {
        "metadata": {"labels": {"team": "ml", "cost": 7}, "annotations": {"note": "x"}},
        "spec": {"nodeSelector": {"pool": "batch"}, "tolerations": [taint],
                 "priorityClassName": "low", "imagePullSecrets": [{"name": "r"}]},
    })  # fmt: skip
    labels, annotations = found["metadata"]["labels"], found["metadata"]["annotations"]
    assert (labels["team"], labels["cost"], annotations["note"]) == ("ml", "7", "x")
    assert found["spec"]["nodeSelector"] == {"pool": "batch"}
    assert found["spec"]["priorityClassName"] == "low"
    tolerated = found["spec"]["tolerations"]
    assert taint in tolerated
    assert len(tolerated) == 3


def test_our_own_labels_stay(tmp_path: Path) -> None:
    theirs = {"whimbrel.dev/cluster": "other", "whimbrel.dev/more": "x"}
    found = made(tmp_path, {"metadata": {"labels": theirs, "annotations": dict(theirs)}})
    plain = manifest(attempt(), ORDER, SETTINGS)
    assert found["metadata"] == plain["metadata"]


def test_preferences_are_joined(tmp_path: Path) -> None:
    theirs = {"weight": 5, "preference": {"matchExpressions": []}}
    required = {"nodeSelectorTerms": [{"matchExpressions": []}]}
    affinity = {"nodeAffinity": {
        "preferredDuringSchedulingIgnoredDuringExecution": [theirs],
        "requiredDuringSchedulingIgnoredDuringExecution": required,
    }}  # fmt: skip
    found = made(tmp_path, {"spec": {"affinity": affinity}}, avoid=("a",))
    node = found["spec"]["affinity"]["nodeAffinity"]
    assert node["requiredDuringSchedulingIgnoredDuringExecution"] == required
    preferred = node["preferredDuringSchedulingIgnoredDuringExecution"]
    assert len(preferred) == 2
    assert theirs in preferred


def test_one_template_for_many_pods(tmp_path: Path) -> None:
    """Merging must not write into the template: a pod would inherit another's hosts to avoid."""
    template = {"spec": {"affinity": {"nodeAffinity": {
        "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "preference": {}}],
    }}, "tolerations": [{"key": "x", "operator": "Exists"}]}}  # fmt: skip
    settings = replace(SETTINGS, template=loaded(tmp_path, template))
    for host in ("a", "b"):
        found = manifest(attempt(avoid=(host,)), ORDER, settings)
        node = found["spec"]["affinity"]["nodeAffinity"]
        assert len(node["preferredDuringSchedulingIgnoredDuringExecution"]) == 2
    assert settings.template == template


def test_nothing_on_the_list_weakens_a_pod() -> None:
    weakening = ("security", "host", "service", "container", "volume", "share", "automount")
    assert not [field for field in SPEC if any(word in field.lower() for word in weakening)]
