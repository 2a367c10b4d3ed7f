"""The agent as the Deployment of infra/kubernetes in a test cluster, applied as a person would.

Used by test_agent_in_cluster.py. What a provider's cluster has and this one lacks is made here: a
disk for the claim, the API server's own service, and a way to routers that listen on this machine.
"""

import asyncio
import json
import os
import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from whimbrel.cli.federation.relay import Relay

from tests.e2e.federation import eventually
from tests.e2e.kubernetes.cluster import ACCOUNT, AGENT_MANIFESTS, NAMESPACE, Cluster
from tests.e2e.kubernetes.image import AGENT, agent_image
from tests.e2e.kubernetes.network import GATEWAY, run
from tests.e2e.kubernetes.node import Node

IN_CLUSTER = AGENT_MANIFESTS.parent / "agent-in-cluster"
OPTIONS = sorted((AGENT_MANIFESTS.parent / "options").iterdir())
SERVICE = "10.96.0.1"
"""The API server's address in the service network, as pods are told it."""
SECRETS = ("store_key", "store_secret")
FIXED = ("compute", "namespace", "peers")
"""Settings that the manifest has already, or that are empty here."""


@contextmanager
def links(routers: Sequence[str]) -> Generator[list[str]]:
    """Addresses on the bridge, one for each of these of the machine alone."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="links", daemon=True)
    thread.start()

    async def opened() -> list[Relay]:
        relays = [Relay(host, int(port)) for host, port in (r.split(":") for r in routers)]
        for relay in relays:
            await relay.start(GATEWAY)
        return relays

    async def close(relays: list[Relay]) -> None:
        for relay in relays:
            await relay.close()

    relays = asyncio.run_coroutine_threadsafe(opened(), loop).result(10)
    try:
        yield [relay.address for relay in relays]
    finally:
        asyncio.run_coroutine_threadsafe(close(relays), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def prepare(cluster: Cluster) -> None:
    """The image on every node, the service of the API server, a disk for the agent's claim."""
    archive = agent_image(say=cluster.say)
    for node in cluster.nodes:
        node.ctr("images", "import", str(archive))
        # kube-proxy's work, for the one service that there is.
        run(*node.host.inside(
            "iptables", "-w", "-t", "nat", "-A", "PREROUTING", "-d", SERVICE, "-p", "tcp",
            "--dport", "443", "-j", "DNAT", "--to-destination", f"{cluster.control.address}:6443",
        ))  # fmt: skip
    node = cluster.nodes[0]
    disk = node.folder / "agent-disk"
    disk.mkdir()
    cluster.kubectl("apply", "-f", "-", stdin=json.dumps(_volume(node, disk)))


def _volume(node: Node, disk: Path) -> dict[str, Any]:
    """Local, not hostPath: the kubelet gives it to the pod's group, as it does with a cloud's."""
    here = {"key": "kubernetes.io/hostname", "operator": "In", "values": [node.name]}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": "agent-disk"},
        "spec": {
            "capacity": {"storage": "2Gi"},
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain",
            "local": {"path": str(disk)},
            "nodeAffinity": {
                "required": {"nodeSelectorTerms": [{"matchExpressions": [here]}]},
            },
        },
    }


def overlay(folder: Path, cluster: Cluster, *, routers: Sequence[str], **more: str) -> Path:
    """One of those that infra/kubernetes/README.md asks a person for. `more` are settings."""
    settings = {
        "cluster": cluster.name,
        "region": cluster.name,
        "router": ",".join(routers),
        **cluster.agent_settings(),
        **more,
    }

    def literals(names: Sequence[str]) -> list[str]:
        return [f"WHIMBREL_AGENT_{name.upper()}={settings[name]}" for name in names]

    plain = [name for name in settings if name not in (*FIXED, *SECRETS)]
    base, *options = (os.path.relpath(path, folder.resolve()) for path in (IN_CLUSTER, *OPTIONS))
    name, _, tag = AGENT.rpartition(":")
    folder.mkdir()
    (folder / "kustomization.yaml").write_text(yaml.safe_dump({
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": NAMESPACE,
        "resources": [base],
        "components": options,
        "images": [{"name": "registry.example/whimbrel-agent", "newName": name, "newTag": tag}],
        "configMapGenerator": [
            {"name": ACCOUNT, "behavior": "merge", "literals": literals(plain)}
        ],
        "secretGenerator": [{"name": ACCOUNT, "literals": literals(SECRETS)}],
    }))  # fmt: skip
    return folder


@dataclass(frozen=True, slots=True)
class InCluster:
    """The agent's pod, as the cluster and as its node see it."""

    cluster: Cluster

    def apply(self, folder: Path) -> None:
        """Back when the Deployment is available."""
        self.cluster.kubectl("apply", "-k", str(folder))
        ask = ("rollout", "status", "deployment", "whimbrel-agent", "--timeout=110s")
        try:
            self.cluster.kubectl("-n", NAMESPACE, *ask)
        except RuntimeError as error:
            raise AssertionError(f"{error}\n{self.story()}") from error

    def pod(self) -> dict[str, Any]:
        label = "app.kubernetes.io/name=whimbrel-agent"
        text = self.cluster.kubectl("-n", NAMESPACE, "get", "pods", "-l", label, "-o", "json")
        (found,) = json.loads(text)["items"]
        return found

    @property
    def restarts(self) -> int:
        return self.pod()["status"]["containerStatuses"][0]["restartCount"]

    def pid(self) -> int:
        """Of the container's first process, as this machine counts; asks no API server."""
        for node in self.cluster.nodes:
            # Not glob: folders of other containers go while it looks.
            for folder, _, names in os.walk(node.folder / "containerd-state"):
                if "init.pid" not in names:
                    continue
                try:
                    pid = int(Path(folder, "init.pid").read_text())
                    command = Path(f"/proc/{pid}/cmdline").read_text()
                except OSError:
                    continue
                if "data_plane_agent" in command:
                    return pid
        raise LookupError(f"no agent runs in {self.cluster.name}")

    def await_ready(self) -> None:
        def ready() -> bool:
            return self.pod()["status"]["containerStatuses"][0]["ready"]

        eventually("the agent is ready", ready)

    def story(self) -> str:
        """For a failure: what the cluster and the agent say."""
        told: list[str] = []
        for ask in (
            ("describe", "pods", "-l", "app.kubernetes.io/name=whimbrel-agent"),
            ("get", "events"),
            ("logs", "deployment/whimbrel-agent", "--tail=50"),
        ):
            try:
                told.append(self.cluster.kubectl("-n", NAMESPACE, *ask))
            except RuntimeError as error:
                told.append(str(error))
        return "\n".join(told)


def resident_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024
