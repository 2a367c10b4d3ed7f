"""The agent's rights, and that the manifests grant just these."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from whimbrel.errors import Refused

from data_plane_agent.pods.access import RIGHTS, check, rules
from data_plane_agent.settings import PREFIX, Settings

pytestmark = pytest.mark.anyio

ACCOUNT = "system:serviceaccount:tasks:the-agent"
MANIFESTS = Path(__file__).parents[3] / "infra" / "kubernetes"


@dataclass
class Api:
    """Allows everything but `denied`: "verb resource" or "verb resource/subresource"."""

    denied: tuple[str, ...] = ()
    who: str = ACCOUNT
    namespace: str = "tasks"

    async def may(
        self, verb: str, resource: str, subresource: str = "", *, namespaced: bool = True
    ) -> bool:
        assert namespaced == (resource != "nodes")
        return f"{verb} {resource}{'/' if subresource else ''}{subresource}" not in self.denied

    async def whoami(self) -> str:
        return self.who


def documents(text: str) -> list[dict[str, Any]]:
    return [one for one in yaml.safe_load_all(text) if one is not None]


async def test_who_may_everything_is_let_in() -> None:
    await check(Api())


@pytest.mark.parametrize("right", RIGHTS, ids=lambda r: r.target)
async def test_each_verb_is_needed(right: Any) -> None:
    for verb in right.verbs:
        with pytest.raises(Refused, match=f"may not {verb} {right.target} "):
            await check(Api(denied=(f"{verb} {right.target}",)))


async def test_a_refusal_prints_what_is_missing_and_how_to_see_it() -> None:
    api = Api(denied=("get pods/log", "delete pods", "watch nodes"))
    with pytest.raises(Refused) as caught:
        await check(api)
    text = str(caught.value)
    role, binding, cluster_role, cluster_binding = documents(
        text.split("---\n", 1)[1].rsplit("---\n", 1)[0]
    )
    assert role["kind"] == "Role"
    assert role["metadata"]["namespace"] == "tasks"
    assert role["rules"] == [
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["delete"]},
        {"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"]},
    ]
    assert cluster_role["kind"] == "ClusterRole"
    assert cluster_role["rules"] == [
        {"apiGroups": [""], "resources": ["nodes"], "verbs": ["watch"]}
    ]
    account = {"kind": "ServiceAccount", "name": "the-agent", "namespace": "tasks"}
    for made, bound in ((role, binding), (cluster_role, cluster_binding)):
        assert bound["kind"] == f"{made['kind']}Binding"
        assert bound["roleRef"]["name"] == made["metadata"]["name"]
        assert bound["roleRef"]["kind"] == made["kind"]
        assert bound["subjects"] == [account]
    assert f"kubectl auth can-i delete pods --namespace tasks --as '{ACCOUNT}'" in text


async def test_a_subresource_and_the_whole_cluster_are_seen_by_other_commands() -> None:
    with pytest.raises(Refused, match="can-i get pods --subresource=log --namespace tasks"):
        await check(Api(denied=("get pods/log",)))
    with pytest.raises(Refused, match="can-i list nodes --as"):
        await check(Api(denied=("list nodes",)))


async def test_a_person_is_bound_as_a_user() -> None:
    with pytest.raises(Refused, match="kind: User\n  name: anna"):
        await check(Api(denied=("create pods",), who="anna"))
    with pytest.raises(Refused, match=r"^the agent may not create pods"):
        await check(Api(denied=("create pods",), who=""))


# -- the manifests --------------------------------------------------------------------------------


def manifests() -> list[dict[str, Any]]:
    files = sorted(MANIFESTS.rglob("*.yaml"))
    found = [one for file in files for one in documents(file.read_text())]
    assert len(found) > len(files) / 2
    return found


def of_kind(kind: str) -> dict[str, Any]:
    (found,) = [one for one in manifests() if one["kind"] == kind]
    return found


def test_every_manifest_says_what_it_is() -> None:
    for manifest in manifests():
        assert manifest["apiVersion"]
        assert manifest["kind"] in ("Kustomization", "Component") or manifest["metadata"]["name"]


def test_every_file_is_named_by_a_kustomization_and_there() -> None:
    for file in MANIFESTS.rglob("kustomization.yaml"):
        (about,) = documents(file.read_text())
        for name in about["resources"]:
            assert (file.parent / name).exists()
        named = {name for name in about["resources"] if name.endswith(".yaml")}
        assert named == {f.name for f in file.parent.glob("*.yaml")} - {file.name}


@pytest.mark.parametrize(("kind", "namespaced"), [("Role", True), ("ClusterRole", False)])
def test_the_roles_grant_what_is_asked_and_no_more(kind: str, namespaced: bool) -> None:
    asked = [right for right in RIGHTS if right.namespaced is namespaced]
    assert of_kind(kind)["rules"] == rules(asked)
    binding = of_kind(f"{kind}Binding")
    assert binding["roleRef"]["name"] == of_kind(kind)["metadata"]["name"]
    assert binding["subjects"][0]["name"] == of_kind("ServiceAccount")["metadata"]["name"]


def test_the_namespace_is_restricted() -> None:
    labels = of_kind("Namespace")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


def test_tasks_reach_names_and_the_store_but_no_metadata() -> None:
    policies = [one for one in manifests() if one["kind"] == "NetworkPolicy"]
    (tasks,) = [one for one in policies if one["metadata"]["name"] == "whimbrel-tasks"]
    assert tasks["spec"]["podSelector"]["matchLabels"] == {"whimbrel.dev/managed-by": "agent"}
    assert tasks["spec"]["policyTypes"] == ["Ingress", "Egress"]
    assert "ingress" not in tasks["spec"]  # = nobody
    dns, store = tasks["spec"]["egress"]
    assert {port["port"] for port in dns["ports"]} == {53}
    assert [port["port"] for port in store["ports"]] == [443]
    v4, v6 = (peer["ipBlock"] for peer in store["to"])
    assert "169.254.0.0/16" in v4["except"]
    assert "fd00:ec2::254/128" in v6["except"]


def test_the_agent_is_one_and_as_restricted_as_its_tasks() -> None:
    deployment = of_kind("Deployment")["spec"]
    assert deployment["replicas"] == 1
    assert deployment["strategy"] == {"type": "Recreate"}
    pod = deployment["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    (agent,) = pod["containers"]
    assert agent["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert agent["livenessProbe"]["httpGet"]["path"] == "/healthz"
    assert agent["readinessProbe"]["httpGet"]["path"] == "/readyz"


def test_the_agents_settings_are_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    literals = [
        literal
        for one in manifests()
        for generator in one.get("configMapGenerator", [])
        for literal in generator["literals"]
    ]
    (agent,) = of_kind("Deployment")["spec"]["template"]["spec"]["containers"]
    pairs = [literal.split("=", 1) for literal in literals]
    pairs += [(one["name"], one.get("value", "whimbrel")) for one in agent["env"]]
    pairs += [(f"{PREFIX}STORE_KEY", "k"), (f"{PREFIX}STORE_SECRET", "s")]  # of the secret
    for name, value in pairs:
        assert name.removeprefix(PREFIX).lower() in Settings.model_fields, name
        monkeypatch.setenv(name, value)
    settings = Settings()  # pyright: ignore[reportCallIssue]
    assert (settings.compute, settings.namespace) == ("kubernetes", "whimbrel")
