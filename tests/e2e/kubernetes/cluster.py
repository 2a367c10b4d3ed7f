"""One real Kubernetes cluster and its region's store, from nothing to Ready and back to nothing.

Used by conftest.py for the tests and by __main__.py for a person. Starts the control plane here,
nodes by node.py, the store by store.py; agents get an account with the project's own rules.
"""

import base64
import json
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.e2e.kubernetes import disks, network, parts, store
from tests.e2e.kubernetes.build import binaries, build
from tests.e2e.kubernetes.faults import Faults, PartName
from tests.e2e.kubernetes.image import TAG, images
from tests.e2e.kubernetes.network import CLUSTERS, Host, run
from tests.e2e.kubernetes.node import SERVED, Node
from tests.e2e.kubernetes.parts import Part
from tests.e2e.kubernetes.state import STATE, Say, locked, until
from tests.e2e.kubernetes.store import Store

NAMESPACE = "whimbrel"
ACCOUNT = "whimbrel-agent"
AGENT_MANIFESTS = Path(__file__).parents[3] / "infra" / "kubernetes" / "agent"
CONTROL = ("scheduler", "controller-manager", "apiserver", "etcd", "store")
NODE_LOST = "8s"
"""Silence after which a node is NotReady. Shorter takes a busy machine for a dead one."""


class Cluster(Faults):
    """What it is made of lies under `folder`, so another process can go on with it by its name."""

    def __init__(self, name: str, *, say: Say = lambda line: None) -> None:
        self.name = name
        self.say = say
        self.folder = STATE / name
        self.kubeconfig = self.folder / "kubeconfig"

    @property
    def index(self) -> int:
        return int((self.folder / "index").read_text())

    @property
    def control(self) -> Host:
        return Host(self.name, self.index, 0)

    @property
    def nodes(self) -> list[Node]:
        numbers = sorted(int(path.name.split("-")[1]) for path in self.folder.glob("node-*"))
        return [self._node(number) for number in numbers]

    @property
    def running(self) -> bool:
        try:
            return self.part("apiserver").alive
        except LookupError:
            return False

    def up(self, *, nodes: int = 1) -> None:
        """Ready when it returns. What an earlier, killed run of this cluster left is removed."""
        self.down()
        built = build(self.say)
        made = images(binaries=built, say=self.say)
        disk = disks.prototype((made.pause, made.base), say=self.say)
        self._take_index()
        (self.folder / "image").write_text(made.name)
        with ThreadPoolExecutor(nodes) as pool:
            prepared = [pool.submit(self._node(n + 1).prepare, made, disk) for n in range(nodes)]
            self._start_control_plane(built)
            store.start(self.control, self.folder, binaries=built)
            for future in prepared:
                future.result()
        for node in self.nodes:
            node.join(self.kubeconfig)
        self._install_agent()
        self.await_ready(*(node.name for node in self.nodes))

    def add_node(self) -> str:
        """One more, Ready; answers its name."""
        node = self._node(len(self.nodes) + 1)
        made = images(binaries=binaries(), say=self.say)
        node.prepare(made, disks.prototype((made.pause, made.base), say=self.say))
        node.join(self.kubeconfig)
        self.await_ready(node.name)
        return node.name

    def down(self) -> None:
        """No process, mount, namespace, link, cgroup or file is left, whatever state it was in."""
        if not (self.folder / "index").exists():
            shutil.rmtree(self.folder, ignore_errors=True)
            return
        for node in self.nodes:
            node.remove()
        parts.kill(network.processes(self.control))
        network.remove(self.control)
        parts.unmount(self.folder)
        shutil.rmtree(self.folder)

    def kubectl(self, *arguments: str, stdin: str = "", timeout: float = 120) -> str:
        """What it prints; RuntimeError with its complaint when it fails."""
        own = (f"--kubeconfig={self.kubeconfig}", f"--cache-dir={self.folder}/kubectl")
        command = (str(binaries() / "kubectl"), *own, *arguments)
        return run(*command, stdin=stdin, timeout=timeout)

    def store(self) -> Store:
        return store.describe(self.control, self.folder)

    def agent_kubeconfig(self) -> Path:
        """For the agent's own account, with a token of a day: no more than its rules allow."""
        token = self.kubectl("-n", NAMESPACE, "create", "token", ACCOUNT, "--duration=24h").strip()
        path = self.folder / "agent.kubeconfig"
        self._write_kubeconfig(path, user=ACCOUNT, token=token)
        return path

    def agent_settings(self, peers: Iterable["Cluster"] = ()) -> dict[str, Any]:
        """Keys of the agent's settings for this region, which may read the stores of its peers."""
        own = self.store()
        return {
            "compute": "kubernetes",
            "namespace": NAMESPACE,
            "image": TAG,
            "store": own.url,
            "store_endpoint": own.endpoint,
            "store_key": own.key,
            "store_secret": own.secret,
            "store_region": own.region,
            "peers": {
                other.url: {"endpoint": other.endpoint, "key": other.key,
                            "secret": other.secret, "region": other.region}
                for other in (peer.store() for peer in peers if peer.name != self.name)
            },
        }  # fmt: skip

    @property
    def image_by_digest(self) -> str:
        return (self.folder / "image").read_text()

    def part(self, name: str, *, node: str = "") -> Part:
        return parts.find(name, self._folder_of(name, node))

    def restart(self, part: PartName, *, node: str = "") -> None:
        """Ends it where it still runs, starts it as it was, waits until it serves again."""
        parts.again(part, self._folder_of(part, node))
        if part in ("apiserver", "etcd"):
            self._await_api()
        elif part == "kubelet":
            self.await_ready(node)
        elif part == "containerd":
            self.node(node).await_containerd()

    def ready_nodes(self) -> set[str]:
        listed = json.loads(self.kubectl("get", "nodes", "-o", "json"))["items"]
        return {
            item["metadata"]["name"]
            for item in listed
            for condition in item["status"].get("conditions", ())
            if condition["type"] == "Ready" and condition["status"] == "True"
        }

    def await_ready(self, *nodes: str) -> None:
        until(f"{', '.join(nodes)} Ready", lambda: self.ready_nodes() >= set(nodes))

    def _node(self, number: int) -> Node:
        host = Host(self.name, self.index, number)
        return Node(host, self.folder / f"node-{number}", binaries())

    def _folder_of(self, part: str, node: str) -> Path:
        if part not in SERVED:
            return self.folder
        if not node:
            raise ValueError(f"which node's {part}?")
        return self.node(node).folder

    def _take_index(self) -> None:
        with locked("clusters"):
            taken = {int(file.read_text()) for file in STATE.glob("*/index")}
            index = next((n for n in range(CLUSTERS) if n not in taken), None)
            if index is None:
                raise RuntimeError(f"{CLUSTERS} clusters run already; see `make clusters-down`")
            self.folder.mkdir(parents=True, exist_ok=True)
            self.folder.chmod(0o711)
            (self.folder / "index").write_text(str(index))

    def _start_control_plane(self, built: Path) -> None:
        host, pki = self.control, self.folder / "pki"
        network.create(host)
        pki.mkdir(mode=0o700)
        key, tokens, token = pki / "accounts.key", pki / "tokens.csv", secrets.token_hex(16)
        run("openssl", "genrsa", "-out", str(key), "2048")
        tokens.write_text(f"{token},admin,admin,system:masters\n")
        self._start("etcd", built / "etcd", {
            "data-dir": self.folder / "etcd", "unsafe-no-fsync": "true", "log-level": "warn",
        })  # fmt: skip
        self._start("apiserver", built / "kube-apiserver", {
            "etcd-servers": "http://127.0.0.1:2379",
            "bind-address": host.address,
            "advertise-address": host.address,
            "cert-dir": pki,
            "token-auth-file": tokens,
            "authorization-mode": "RBAC",
            "service-account-issuer": f"https://{self.name}",
            "service-account-key-file": key,
            "service-account-signing-key-file": key,
            "service-cluster-ip-range": "10.96.0.0/16",
            "allow-privileged": "true",
            "endpoint-reconciler-type": "none",
            "kubelet-preferred-address-types": "InternalIP",
            # A tenth of the defaults: a crowd meets 429 here, as it does on a busy cluster.
            "max-requests-inflight": "40",
            "max-mutating-requests-inflight": "20",
        })  # fmt: skip
        certificate = pki / "apiserver.crt"
        until("the API server's certificate is written",
              lambda: certificate.exists() and certificate.stat().st_size)  # fmt: skip
        self._write_kubeconfig(self.kubeconfig, user="admin", token=token)
        self._await_api()
        common = {"kubeconfig": self.kubeconfig, "leader-elect": "false", "secure-port": "0"}
        self._start("controller-manager", built / "kube-controller-manager", common | {
            "service-account-private-key-file": key,
            "root-ca-file": certificate,
            "node-monitor-grace-period": NODE_LOST,
            "node-monitor-period": "1s",
            "controllers": "*,-node-ipam-controller,-node-route-controller,"
            "-cloud-node-lifecycle-controller",
        })  # fmt: skip
        self._start("scheduler", built / "kube-scheduler", common)

    def _start(self, name: str, binary: Path, flags: Mapping[str, object]) -> None:
        listed = (f"--{flag}={value}" for flag, value in flags.items())
        parts.start(name, self.control, self.folder, str(binary), *listed)

    def _await_api(self) -> None:
        def ready() -> bool:
            try:
                return bool(self.kubectl("get", "--raw", "/readyz", "--request-timeout=2s"))
            except RuntimeError:
                return False

        until(f"the API server of {self.name} is ready", ready)

    def _write_kubeconfig(self, path: Path, *, user: str, token: str) -> None:
        authority = base64.b64encode((self.folder / "pki" / "apiserver.crt").read_bytes()).decode()
        server = {"server": f"https://{self.control.address}:6443",
                  "certificate-authority-data": authority}  # fmt: skip
        path.touch(mode=0o600)
        path.write_text(json.dumps({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": self.name, "cluster": server}],
            "users": [{"name": user, "user": {"token": token}}],
            "contexts": [{"name": self.name, "context": {"cluster": self.name, "user": user,
                                                         "namespace": NAMESPACE}}],
            "current-context": self.name,
        }, indent=1))  # fmt: skip

    def _install_agent(self) -> None:
        """The project's own manifests; pods are refused until `default` accounts exist."""
        self.kubectl("apply", "-k", str(AGENT_MANIFESTS))

        def accounts() -> bool:
            try:
                return bool(self.kubectl("-n", NAMESPACE, "get", "serviceaccount", "default"))
            except RuntimeError:
                return False

        until("the namespace has its default service account", accounts)


@contextmanager
def running(
    nodes: Mapping[str, int], *, say: Say = lambda line: None
) -> Iterator[dict[str, Cluster]]:
    """Clusters with so many nodes each, started together; nothing is left of them."""
    started = {name: Cluster(name, say=say) for name in nodes}
    try:
        with ThreadPoolExecutor(len(started)) as pool:
            ups = [pool.submit(started[name].up, nodes=count) for name, count in nodes.items()]
        for up in ups:
            up.result()
        yield started
    finally:
        for cluster in started.values():
            cluster.down()
