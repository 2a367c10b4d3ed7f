"""An attempt as a pod: name, labels, and a manifest that Pod Security calls restricted. Pure.

Called by `launcher.py` with the order's signed address; what the API server tells of the pod
afterwards is read by `sight.py`.
"""

import re
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from whimbrel.spec import Resources

from data_plane_agent.launcher import Attempt, AttemptKey
from data_plane_agent.pods.api_errors import Object
from data_plane_agent.pods.orders import Order
from data_plane_agent.pods.settings import PodSettings
from data_plane_agent.pods.template import merged

PREFIX = "whimbrel.dev/"
CONTAINER = "task"
MOST_AVOIDED = 3
"""Hosts a pod is kept away from. It is a preference: more would say nothing on a small cluster."""
BACKSTOP_SECONDS = 600
"""Past the task's own time limit, which process 1 of the pod keeps. Shorter ends pods whose image
comes slowly, longer keeps a pod whose process 1 is stuck."""
_SLUG = 24


def pod_name(key: AttemptKey) -> str:
    """The same for the same attempt, so that creating it twice is harmless. The node is hashed too:
    "a b" and "a-b" are written alike."""
    slug = re.sub(r"[^a-z0-9]+", "-", key.node.lower()).strip("-")[:_SLUG].strip("-") or "node"
    unique = _short(f"{key.execution}\n{key.node}", 12)
    return f"w-{unique}-{slug}-{key.attempt}-{key.epoch}"


def selector(cluster: str) -> str:
    """Label selector of every pod of this agent."""
    return f"{PREFIX}managed-by=agent,{PREFIX}cluster={cluster}"


def manifest(attempt: Attempt, order: Order, settings: PodSettings) -> Object:
    key = attempt.key
    seconds = int(settings.lost_seconds)
    made: Object = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": pod_name(key),
            "namespace": settings.namespace,
            "labels": {
                f"{PREFIX}managed-by": "agent",
                f"{PREFIX}cluster": settings.cluster,
                f"{PREFIX}execution": _short(key.execution, 16),
                f"{PREFIX}attempt": str(key.attempt),
                f"{PREFIX}epoch": str(key.epoch),
            },
            "annotations": {
                f"{PREFIX}execution": key.execution,
                f"{PREFIX}node": key.node,
                f"{PREFIX}input-digest": attempt.input_digest,
                f"{PREFIX}order-digest": order.digest,
                f"{PREFIX}order-folder": order.folder,
                f"{PREFIX}avoid": ",".join(attempt.avoid[:MOST_AVOIDED]),
                f"{PREFIX}exclusive": "true" if attempt.exclusive else "false",
            },
        },
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": max(1, int(settings.grace_seconds)),
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": settings.run_as,
                "runAsGroup": settings.run_as,
                "fsGroup": settings.run_as,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "tolerations": [
                {
                    "key": f"node.kubernetes.io/{state}",
                    "operator": "Exists",
                    "effect": "NoExecute",
                    "tolerationSeconds": seconds,
                }
                for state in ("not-ready", "unreachable")
            ],
            "containers": [_container(attempt, order, settings)],
            "volumes": [{"name": name, "emptyDir": {}} for name in ("work", "tmp")],
        },
    }
    spec = made["spec"]
    if attempt.avoid:
        spec["affinity"] = {"nodeAffinity": _away_from(attempt.avoid[:MOST_AVOIDED])}
    if attempt.timeout_seconds:
        limit = attempt.timeout_seconds + settings.grace_seconds + BACKSTOP_SECONDS
        spec["activeDeadlineSeconds"] = int(limit)
    return merged(made, settings.template)


def image_of(attempt: Attempt, settings: PodSettings) -> str:
    return attempt.task.container_image or settings.image


def _container(attempt: Attempt, order: Order, settings: PodSettings) -> Object:
    return {
        "name": CONTAINER,
        "image": image_of(attempt, settings),
        "imagePullPolicy": "IfNotPresent",
        "command": ["python", "-P", "-m", "whimbrel.runtime_pod"],
        "workingDir": "/work",
        "env": _environment(attempt, order, settings),
        "resources": _resources(attempt.requests, attempt.limits, settings),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "terminationMessagePolicy": "File",
        "volumeMounts": [
            {"name": "work", "mountPath": "/work"},
            {"name": "tmp", "mountPath": "/tmp"},
        ],
    }


def _environment(attempt: Attempt, order: Order, settings: PodSettings) -> list[Object]:
    values: dict[str, Object] = {
        name: {"value": value} for name, value in attempt.task.environment.items()
    }
    for secret in attempt.task.secrets:
        if secret in settings.secrets:
            name, _, key = settings.secrets[secret].partition("/")
            values[secret_variable(secret)] = {
                "valueFrom": {"secretKeyRef": {"name": name, "key": key}}
            }
    values |= {
        "WHIMBREL_ORDER": {"value": order.url},
        "WHIMBREL_ORDER_SHA256": {"value": order.sha256},
        "WHIMBREL_HOST": {"valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
    }
    return [{"name": name, **value} for name, value in values.items()]


def secret_variable(secret: str) -> str:
    """Where `current_context().secrets` looks for it."""
    return "WHIMBREL_SECRET_" + "".join(c if c.isalnum() else "_" for c in secret).upper()


def _resources(requests: Resources, limits: Resources, settings: PodSettings) -> Object:
    """A limit is set only where the author gave one: memory that is only requested may grow."""
    cpu = requests.cpu or limits.cpu or settings.default_cpu
    memory = requests.mem_bytes or limits.mem_bytes or settings.default_mem_bytes
    asked: dict[str, str] = {"cpu": _cores(cpu), "memory": str(memory)}
    most: dict[str, str] = {}
    if limits.cpu:
        most["cpu"] = _cores(max(limits.cpu, cpu))
    if limits.mem_bytes:
        most["memory"] = str(max(limits.mem_bytes, memory))
    disk = requests.ephemeral_storage_bytes or limits.ephemeral_storage_bytes
    if disk:
        asked["ephemeral-storage"] = str(disk)
    if limits.ephemeral_storage_bytes:
        most["ephemeral-storage"] = str(max(limits.ephemeral_storage_bytes, disk))
    if gpus := max(requests.gpu, limits.gpu):
        asked[settings.gpu_resource] = most[settings.gpu_resource] = str(gpus)
    return {"requests": asked, "limits": most} if most else {"requests": asked}


def _away_from(hosts: tuple[str, ...]) -> Mapping[str, Any]:
    term = {"key": "kubernetes.io/hostname", "operator": "NotIn", "values": list(hosts)}
    return {
        "preferredDuringSchedulingIgnoredDuringExecution": [
            {"weight": 100, "preference": {"matchExpressions": [term]}}
        ]
    }


def _cores(cpu: float) -> str:
    return f"{max(1, round(cpu * 1000))}m"


def _short(text: str, length: int) -> str:
    return sha256(text.encode()).hexdigest()[:length]
