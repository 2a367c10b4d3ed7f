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
from types import ModuleType
from typing import Any

from whimbrel import AsyncClient, Client
from whimbrel.spec import PlacementPolicy

from bench import work
from bench.federation import Federation, load_program
from bench.figures import Report, Row, percentile
from bench.processes import memory_bytes
from tests.e2e.kubernetes.build import binaries
from tests.e2e.kubernetes.cluster import NAMESPACE, Cluster
from tests.e2e.kubernetes.network import GATEWAY

REGION, HOME = "bench", "home"
AGENT = f"agent/{REGION}"
DOOR = f"{GATEWAY}:8475"
PODS = "whimbrel.dev/managed-by=agent"
DEADLINE = 300.0
IN_CLUSTER, AT_HOME = PlacementPolicy(regions=(REGION,)), PlacementPolicy(regions=(HOME,))


@contextmanager
def region(folder: Path, **settings: object) -> Iterator[tuple[Cluster, Federation]]:
    """One cluster and this machine's processes as two regions; `settings` are further ones of the
    cluster's agent."""
    cluster = Cluster(REGION)
    cluster.up(nodes=1)
    file = folder / "agent.toml"
    file.write_text(toml({**cluster.agent_settings(), **settings}))
    whole = Federation(folder / "data")
    try:
        whole.command(
            "up", "--data-dir", str(whole.data), "--ports", "auto", "--preset", "lan", "--detach",
            "--region", HOME, "--kubeconfig", f"{REGION}={cluster.agent_kubeconfig()}",
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
            await client.launch(
                flow[0], {"index": index}, version=flow[1], name=name, placement=IN_CLUSTER
            )

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
        (began,) = run(client, flow, IN_CLUSTER, index=index).values()
        samples.append((began - start) / 1e9)
    return samples


def run(
    client: Client, flow: tuple[str, str], where: PlacementPolicy, **inputs: int
) -> dict[str, int]:
    execution = client.launch(flow[0], inputs, version=flow[1], placement=where)
    return dict(execution.wait(timeout=DEADLINE).outputs or {})


def timed(
    client: Client, flow: tuple[str, str], where: PlacementPolicy, *, nodes: int, repeats: int
) -> list[float]:
    """Seconds a node, end to end, after a run that counts for nothing: pods and code are warm."""
    run(client, flow, where)
    samples: list[float] = []
    for _ in range(repeats):
        start = time.perf_counter()
        run(client, flow, where)
        samples.append((time.perf_counter() - start) / nodes)
    return samples


def warm(report: Report, client: Client, program: ModuleType, *, quick: bool) -> None:
    flows = {
        name: (view.name, view.version)
        for name in ("chain", "fan_out", "warm_chain", "warm_fan_out", "short_chain")
        for view in [client.register(getattr(program, name))[0]]
    }
    repeats = 1 if quick else 3
    nodes, width = program.CHAIN, program.FAN_OUT + 1
    chain = timed(client, flows["warm_chain"], IN_CLUSTER, nodes=nodes, repeats=repeats)
    home = timed(client, flows["chain"], AT_HOME, nodes=nodes, repeats=repeats)
    pods = timed(client, flows["short_chain"], IN_CLUSTER, nodes=program.SHORT_CHAIN, repeats=1)
    for peer, theirs in (("processes", home), ("a pod a node", pods)):
        report.add(Row(f"warm pods: chain of {nodes}", "s/node", tuple(chain), 0, False, peer,
                       tuple(theirs)))  # fmt: skip
    wide = timed(client, flows["warm_fan_out"], IN_CLUSTER, nodes=width, repeats=repeats)
    home = timed(client, flows["fan_out"], AT_HOME, nodes=width, repeats=repeats)
    report.add(Row(f"warm pods: fan-out of {width - 1:,}", "tasks/s", tuple(1 / s for s in wide),
                   0, True, "processes", tuple(1 / s for s in home)))  # fmt: skip


def measure(report: Report, *, quick: bool) -> None:
    count = 60 if quick else 200
    crowd = 200 if quick else 1000
    with (
        tempfile.TemporaryDirectory(prefix="wbench-") as name,
        region(Path(name), unschedulable_seconds=3600, door=DOOR) as (cluster, whole),
        whole.client() as client,
    ):
        program = load_program()
        flows = work.register(client, program)
        run(client, flows.one, IN_CLUSTER, index=0)
        starts(report, cluster, client, flows, 3 if quick else 10)
        idle = memory_bytes([whole.pids[AGENT]]) / 2**20
        report.add(Row("agent of a cluster: memory, idle", "MiB", (idle,), 100))
        warm(report, client, program, quick=quick)
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
