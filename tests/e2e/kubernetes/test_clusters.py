"""The test clusters themselves: pods run, nodes get lost and return, the store works."""

import json
import signal
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import obstore
import pytest
from obstore.store import S3Store

from tests.e2e.federation import eventually
from tests.e2e.kubernetes import cgroups
from tests.e2e.kubernetes.cluster import Cluster
from tests.e2e.kubernetes.network import GATEWAY
from tests.e2e.kubernetes.node import Node

RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}


@pytest.fixture
def alpha(clusters: dict[str, Cluster]) -> Iterator[Cluster]:
    yield clusters["alpha"]
    clusters["alpha"].kubectl("-n", "whimbrel", "delete", "pods", "--all", "--now")


def start_pod(cluster: Cluster, name: str, code: str, **spec: Any) -> None:
    container = {
        "name": "task",
        "image": cluster.image_by_digest,
        "imagePullPolicy": "Never",
        "command": ["python", "-P", "-c", code],
        "securityContext": RESTRICTED,
    }
    secure = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    manifest = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "whimbrel"},
        "spec": {"containers": [container], "restartPolicy": "Never", "securityContext": secure,
                 "automountServiceAccountToken": False, **spec},
    }  # fmt: skip
    cluster.kubectl("apply", "-f", "-", stdin=json.dumps(manifest))


def phase(cluster: Cluster, name: str) -> str:
    path = "jsonpath={.status.phase}"
    return cluster.kubectl("-n", "whimbrel", "get", "pod", name, "-o", path)


def output(cluster: Cluster, name: str) -> str:
    """What it printed, once it has ended well."""
    eventually(f"{name} has ended", lambda: phase(cluster, name) in ("Succeeded", "Failed"))
    text = cluster.kubectl("-n", "whimbrel", "logs", name)
    assert phase(cluster, name) == "Succeeded", text
    return text


def test_a_restricted_pod_runs_this_interpreter_and_this_sdk(alpha: Cluster) -> None:
    start_pod(alpha, "version", "import sys, whimbrel, sklearn; print(sys.version, whimbrel.task)")
    assert output(alpha, "version").startswith(sys.version)


def test_what_is_not_restricted_is_refused(alpha: Cluster) -> None:
    with pytest.raises(RuntimeError, match="violates PodSecurity"):
        start_pod(alpha, "root", "", securityContext={})


def test_a_pod_reads_and_writes_one_object_by_signed_urls(alpha: Cluster) -> None:
    store = alpha.store()
    bucket = S3Store(
        store.url.removeprefix("s3://"), endpoint=store.endpoint, region=store.region,
        access_key_id=store.key, secret_access_key=store.secret,
        virtual_hosted_style_request=False, client_options={"allow_http": True},
    )  # fmt: skip
    obstore.put(bucket, "in", b"from the test")
    get = obstore.sign(bucket, "GET", "in", timedelta(minutes=5))
    put = obstore.sign(bucket, "PUT", "out", timedelta(minutes=5))
    start_pod(
        alpha, "signed",
        "from urllib.request import Request, urlopen\n"
        f"body = urlopen({get!r}).read() + b', from the pod'\n"
        f"print(urlopen(Request({put!r}, data=body, method='PUT')).status)",
    )  # fmt: skip
    assert output(alpha, "signed") == "200\n"
    assert bytes(obstore.get(bucket, "out").bytes()) == b"from the test, from the pod"


def test_a_cut_node_is_not_ready_and_heals(alpha: Cluster) -> None:
    alpha.cut("alpha-2")
    try:
        eventually("alpha-2 is missed", lambda: alpha.ready_nodes() == {"alpha-1"})
    finally:
        alpha.heal("alpha-2")
    alpha.await_ready("alpha-1", "alpha-2")


def test_a_crashed_node_loses_its_pods_and_comes_back(alpha: Cluster) -> None:
    start_pod(alpha, "sleeper", "import time; print(1); time.sleep(600)", nodeName="alpha-2")
    eventually("it runs", lambda: phase(alpha, "sleeper") == "Running")
    alpha.crash("alpha-2")
    assert not cgroups.processes("whimbrel-alpha-2")
    alpha.restart_node("alpha-2")
    eventually("its end is known", lambda: phase(alpha, "sleeper") in ("Succeeded", "Failed"))


def test_parts_freeze_die_and_serve_again(alpha: Cluster) -> None:
    alpha.signal("apiserver", signal.SIGSTOP)
    with pytest.raises(RuntimeError):
        alpha.kubectl("get", "--raw", "/readyz", "--request-timeout=1s")
    alpha.signal("apiserver", signal.SIGCONT)
    alpha.signal("etcd", signal.SIGKILL)
    alpha.restart("etcd")
    alpha.signal("kubelet", signal.SIGKILL, node="alpha-1")
    with pytest.raises(LookupError, match="does not run"):
        alpha.signal("kubelet", signal.SIGKILL, node="alpha-1")
    alpha.restart("kubelet", node="alpha-1")


def test_packets_are_dropped_one_way_and_regions_isolated(alpha: Cluster) -> None:
    def reachable() -> bool:
        try:
            return bool(alpha.kubectl("get", "--raw", "/readyz", "--request-timeout=1s"))
        except RuntimeError:
            return False

    alpha.drop("alpha-control", "in", peer=GATEWAY)
    assert not reachable()
    alpha.undrop("alpha-control", "in", peer=GATEWAY)
    eventually("it is reached again", reachable)
    store = alpha.store().endpoint.removeprefix("http://").split(":")
    start_pod(
        alpha, "dials",
        "import os, socket, time\n"
        "def dial(*address):\n"
        "    try: socket.create_connection(address, timeout=1)\n"
        "    except OSError as error: return type(error).__name__\n"
        f"def both(): print(dial('{GATEWAY}', 9), dial('{store[0]}', {store[1]}), flush=True)\n"
        "both()\n"
        f"while dial('{GATEWAY}', 9) == 'ConnectionRefusedError': time.sleep(0.1)\n"
        "both()",
    )  # fmt: skip
    eventually("it runs", lambda: phase(alpha, "dials") == "Running")
    eventually("it has dialled", lambda: alpha.kubectl("-n", "whimbrel", "logs", "dials"))
    alpha.isolate()
    try:
        assert not reachable()
    finally:
        alpha.join_again()
    eventually("it is reached again", reachable)
    assert output(alpha, "dials").splitlines() == [
        "ConnectionRefusedError None",  # nothing listens there, but it answers
        "TimeoutError None",
    ]
    assert alpha.ready_nodes() == {"alpha-1", "alpha-2"}


def test_the_agents_account_may_what_its_rules_say(alpha: Cluster) -> None:
    own = f"--kubeconfig={alpha.agent_kubeconfig()}"
    assert alpha.kubectl("auth", "can-i", "create", "pods", "-n", "whimbrel", own) == "yes\n"
    with pytest.raises(RuntimeError):  # kubectl's own way to say no
        alpha.kubectl("auth", "can-i", "get", "secrets", "-n", "kube-system", own)


def test_down_leaves_nothing_even_of_a_cluster_that_is_in_pieces(
    clusters: dict[str, Cluster],
) -> None:
    gone = Cluster("gamma")
    gone.up()
    start_pod(gone, "sleeper", "import time; time.sleep(600)")
    eventually("it runs", lambda: phase(gone, "sleeper") == "Running")
    nodes = gone.nodes
    sockets = shim_sockets(nodes[0])
    gone.signal("apiserver", signal.SIGSTOP)
    gone.signal("containerd", signal.SIGKILL, node="gamma-1")
    gone.cut_all()
    gone.down()

    assert sockets
    assert not any(socket.exists() for socket in sockets)
    assert not any(b"whimbrel-clusters/gamma/" in line for line in command_lines())
    assert "gamma" not in Path("/proc/mounts").read_text()
    assert not list(Path("/run/netns").glob("whimbrel-gamma-*"))
    assert not any(Path(f"/sys/class/net/{node.host.link}").exists() for node in nodes)
    assert not list(cgroups.ROOT.glob("**/whimbrel-gamma-*"))
    assert not any(path.exists() for path in (gone.folder, *(node.disk for node in nodes)))
    assert clusters["alpha"].running, "its neighbours do not notice"


def shim_sockets(node: Node) -> list[Path]:
    found = node.folder.glob("containerd-state/**/address")
    return [Path(file.read_text().removeprefix("unix://")) for file in found]


def command_lines() -> Iterator[bytes]:
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            yield file.read_bytes()
        except OSError:
            continue
