"""Measures of runs in real clusters: how soon a pod exists, what we add to its start, what an agent
costs, and what warm pods save.

Called by `python -m bench pods`, as root; the clusters are those of the end-to-end tests. A frozen
scheduler keeps pods from starting where only their creation is measured.
"""

import asyncio
import json
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from whimbrel import AsyncClient, Client

from bench import work
from bench.federation import Federation, load_program
from bench.figures import Report, Row, percentile
from bench.processes import memory_bytes
from tests.e2e.kubernetes.build import binaries
from tests.e2e.kubernetes.cluster import NAMESPACE, Cluster

REGION = "bench"
AGENT = f"agent/{REGION}"
PODS = "whimbrel.dev/managed-by=agent"
DEADLINE = 300.0


@contextmanager
def region(folder: Path, **settings: object) -> Iterator[tuple[Cluster, Federation]]:
    """One cluster and a federation with it alone; `settings` are further ones of its agent."""
    cluster = Cluster(REGION)
    cluster.up(nodes=1)
    file = folder / "agent.toml"
    file.write_text(toml({**cluster.agent_settings(), **settings}))
    whole = Federation(folder / "data")
    try:
        whole.command(
            "up", "--data-dir", str(whole.data), "--ports", "auto", "--preset", "lan", "--detach",
            "--region", REGION, "--kubeconfig", f"{REGION}={cluster.agent_kubeconfig()}",
            "--agent-settings", f"{REGION}={file}",
        )  # fmt: skip
        yield cluster, whole
    finally:
        whole.stop()
        cluster.down()


def toml(settings: dict[str, Any]) -> str:
    """Flat keys, and tables of strings one level down."""
    flat = [f"{key} = {json.dumps(value)}" for key, value in settings.items()
            if not isinstance(value, dict)]  # fmt: skip
    tables = [
        f"[{key}.{json.dumps(name)}]\n" + "\n".join(f"{k} = {json.dumps(v)}" for k, v in of.items())
        for key, value in settings.items() if isinstance(value, dict) for name, of in value.items()
    ]  # fmt: skip
    return "\n".join([*flat, *tables]) + "\n"


class Births:
    """When the API server told of each execution's pod, in Unix nanoseconds, by execution."""

    def __init__(self, cluster: Cluster) -> None:
        self.at: dict[str, int] = {}
        command = [str(binaries() / "kubectl"), f"--kubeconfig={cluster.kubeconfig}", "-n",
                   NAMESPACE, "get", "pods", "-l", PODS, "--watch-only", "-o",
                   r"jsonpath={.metadata.annotations.whimbrel\.dev/execution}{'\n'}"]  # fmt: skip
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        time.sleep(1)  # the watch is open before the first pod is made

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.at.setdefault(line.strip(), time.time_ns())

    def await_all(self, count: int) -> None:
        end = time.monotonic() + DEADLINE
        while len(self.at) < count and time.monotonic() < end:
            time.sleep(0.05)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._thread.join()


async def launch_at(
    endpoint: str, flow: tuple[str, str], *, rate: float, count: int
) -> dict[str, int]:
    """Launches at an even pace whatever the answers take; when each was sent, by execution."""
    sent: dict[str, int] = {}
    async with AsyncClient(endpoint) as client:

        async def one(index: int) -> None:
            name = f"born-{time.monotonic_ns()}-{index}"
            sent[f"default/development/{name}"] = time.time_ns()
            await client.launch(flow[0], {"index": index}, version=flow[1], name=name)

        async with asyncio.TaskGroup() as group:
            start = time.monotonic()
            for index in range(count):
                await asyncio.sleep(max(0.0, start + index / rate - time.monotonic()))
                group.create_task(one(index))
    return sent


def created(cluster: Cluster, whole: Federation, flow: tuple[str, str], *, rate: float,
            count: int) -> list[float]:  # fmt: skip
    """Seconds from `launch` until a watcher of the API server sees the pod."""
    births = Births(cluster)
    try:
        sent = asyncio.run(launch_at(whole.sandbox["endpoint"], flow, rate=rate, count=count))
        births.await_all(count)
    finally:
        births.close()
    return [(births.at[name] - at) / 1e9 for name, at in sent.items() if name in births.at]


def requests(cluster: Cluster) -> float:
    """What the API server has answered on pods since it started, watches left out."""
    total = 0.0
    for line in cluster.kubectl("get", "--raw", "/metrics").splitlines():
        ours = line.startswith("apiserver_request_total{") and 'resource="pods"' in line
        if ours and 'verb="WATCH"' not in line:
            total += float(line.rsplit(" ", 1)[1])
    return total


def bare_start(cluster: Cluster, count: int) -> list[float]:
    """Seconds from the creation of a pod of the same image to its first statement, without us."""
    samples: list[float] = []
    for index in range(count):
        pod = {
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": f"bare-{index}", "namespace": NAMESPACE},
            "spec": {
                "restartPolicy": "Never", "automountServiceAccountToken": False,
                "securityContext": {"runAsNonRoot": True, "runAsUser": 1000,
                                    "seccompProfile": {"type": "RuntimeDefault"}},
                "containers": [{
                    "name": "task", "image": cluster.agent_settings()["image"],
                    "imagePullPolicy": "IfNotPresent",
                    "command": ["python", "-c", "import time; print(time.time_ns())"],
                    "securityContext": {"allowPrivilegeEscalation": False,
                                        "capabilities": {"drop": ["ALL"]}},
                }],
            },
        }  # fmt: skip
        start = time.time_ns()
        cluster.kubectl("create", "-f", "-", stdin=json.dumps(pod))
        phase = ("-n", NAMESPACE, "wait", f"pod/bare-{index}",
                 "--for=jsonpath={.status.phase}=Succeeded", "--timeout=60s")  # fmt: skip
        cluster.kubectl(*phase)
        began = int(cluster.kubectl("-n", NAMESPACE, "logs", f"bare-{index}"))
        samples.append((began - start) / 1e9)
        cluster.kubectl("-n", NAMESPACE, "delete", "pod", f"bare-{index}", "--grace-period=0",
                        "--force")  # fmt: skip
    return samples


def our_start(client: Client, flow: tuple[str, str], count: int) -> list[float]:
    """Seconds from `launch` to the first statement of the task."""
    samples: list[float] = []
    for index in range(count):
        start = time.time_ns()
        (began,) = work.run(client, flow, index=index).values()
        samples.append((began - start) / 1e9)
    return samples


def measure(report: Report, *, quick: bool) -> None:
    count = 60 if quick else 200
    crowd = 200 if quick else 1000
    with (
        tempfile.TemporaryDirectory(prefix="wbench-") as name,
        region(Path(name), unschedulable_seconds=3600) as (cluster, whole),
        whole.client() as client,
    ):
        flows = work.register(client, load_program())
        work.run(client, flows.one, index=0)
        starts(report, cluster, client, flows, 3 if quick else 10)
        idle = memory_bytes([whole.pids[AGENT]]) / 2**20
        report.add(Row("agent of a cluster: memory, idle", "MiB", (idle,), 100))
        cluster.signal("scheduler", signal.SIGSTOP)
        births(report, cluster, whole, flows, count)
        crowded(report, cluster, whole, flows, crowd)


def starts(report: Report, cluster: Cluster, client: Client, flows: work.Flows,
           count: int) -> None:  # fmt: skip
    ours, bare = our_start(client, flows.one, count), bare_start(cluster, count)
    report.add(Row("submit to a pod's first statement", "s", tuple(ours), 0, False,
                   "a bare pod of kubectl's", tuple(bare)))  # fmt: skip
    report.add(Row("what we add to Kubernetes' own start", "s",
                   (median(ours) - median(bare),), 0.2))  # fmt: skip


def births(report: Report, cluster: Cluster, whole: Federation, flows: work.Flows,
           count: int) -> None:  # fmt: skip
    seen = created(cluster, whole, flows.one, rate=20, count=count)
    report.add(Row("submit to pod created, 20 a second: p50", "s", (median(seen),), 0.2))
    report.add(Row("submit to pod created, 20 a second: p99", "s", (percentile(seen, 0.99),), 1,
                   note=f"{len(seen)} of {count} runs"))  # fmt: skip


def crowded(report: Report, cluster: Cluster, whole: Federation, flows: work.Flows,
            count: int) -> None:  # fmt: skip
    before = requests(cluster)
    seen = created(cluster, whole, flows.one, rate=100, count=count)
    each = (requests(cluster) - before) / max(1, len(seen))
    size = memory_bytes([whole.pids[AGENT]]) / 2**20
    report.add(Row(f"agent with {len(seen)} pods more: memory", "MiB", (size,)))
    report.add(Row("requests to the API server a pod, until it is to start", "", (each,)))
