"""What the agent must be allowed to do in its cluster, asked before it takes any work.

Called by `launcher.py` when it opens; asks `api.py`; raises Refused with the missing rules as YAML.
`infra/kubernetes/agent` grants just these.
"""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import yaml
from whimbrel.errors import Refused


@dataclass(frozen=True, slots=True)
class Right:
    """Verbs on a core resource, which the agent can't do without."""

    resource: str
    verbs: tuple[str, ...]
    subresource: str = ""
    namespaced: bool = True

    @property
    def target(self) -> str:
        return f"{self.resource}/{self.subresource}" if self.subresource else self.resource


RIGHTS = (
    Right("pods", ("create", "get", "list", "watch", "delete")),
    Right("pods", ("get",), subresource="log"),
    Right("nodes", ("get", "list", "watch"), namespaced=False),
)


class Asked(Protocol):
    """What of a `PodApi` is needed here."""

    @property
    def namespace(self) -> str: ...
    async def may(
        self, verb: str, resource: str, subresource: str = "", *, namespaced: bool = True
    ) -> bool: ...
    async def whoami(self) -> str: ...


async def check(api: Asked) -> None:
    """Raises Refused, or ApiDown when the API server can't be asked."""
    asked = [(right, verb) for right in RIGHTS for verb in right.verbs]
    answers = await asyncio.gather(
        *(
            api.may(verb, right.resource, right.subresource, namespaced=right.namespaced)
            for right, verb in asked
        )
    )
    lacking: dict[Right, list[str]] = {}
    for (right, verb), allowed in zip(asked, answers, strict=True):
        if not allowed:
            lacking.setdefault(right, []).append(verb)
    if missing := [replace(right, verbs=tuple(verbs)) for right, verbs in lacking.items()]:
        who = await api.whoami()
        raise Refused(
            f"{who or 'the agent'} may not {_listed(missing)} (namespace {api.namespace})",
            remedy=_remedy(missing, namespace=api.namespace, who=who),
        )


def rules(rights: Sequence[Right]) -> list[dict[str, list[str]]]:
    """As they stand in a Role or ClusterRole."""
    return [
        {"apiGroups": [""], "resources": [right.target], "verbs": list(right.verbs)}
        for right in rights
    ]


def _listed(rights: Sequence[Right]) -> str:
    return ", ".join(f"{verb} {right.target}" for right in rights for verb in right.verbs)


def _remedy(rights: Sequence[Right], *, namespace: str, who: str) -> str:
    kinds = (("Role", True), ("ClusterRole", False))
    manifests = [
        manifest
        for kind, namespaced in kinds
        if (found := [right for right in rights if right.namespaced is namespaced])
        for manifest in _manifests(kind, found, namespace=namespace, who=who)
    ]
    text = yaml.safe_dump_all(manifests, sort_keys=False)
    right = rights[0]
    target = right.resource + (f" --subresource={right.subresource}" if right.subresource else "")
    scope = f" --namespace {namespace}" if right.namespaced else ""
    see = f"kubectl auth can-i {right.verbs[0]} {target}{scope}" + (f" --as '{who}'" if who else "")
    return (
        "apply infra/kubernetes/agent, or only what is missing (kubectl apply -f -):\n"
        f"---\n{text}---\nsee it with: {see}"
    )


def _manifests(
    kind: str, rights: Sequence[Right], *, namespace: str, who: str
) -> Iterator[dict[str, object]]:
    """A role of what is missing, and its binding to `who`."""
    group, name = "rbac.authorization.k8s.io", "whimbrel-agent-missing"
    about = {"name": name} | ({"namespace": namespace} if kind == "Role" else {})
    match who.split(":"):
        case ["system", "serviceaccount", where, account]:
            subject = {"kind": "ServiceAccount", "name": account, "namespace": where}
        case _:
            subject = {"apiGroup": group, "kind": "User", "name": who or "USER-OF-THE-AGENT"}
    yield {
        "apiVersion": f"{group}/v1",
        "kind": kind,
        "metadata": dict(about),
        "rules": rules(rights),
    }
    yield {
        "apiVersion": f"{group}/v1",
        "kind": f"{kind}Binding",
        "metadata": dict(about),
        "roleRef": {"apiGroup": group, "kind": kind, "name": name},
        "subjects": [subject],
    }
