"""Restate: a request a task (`across processes`) and journaled steps of one handler (`inside`).

Called by `__main__`. Server from npm and SDK from PyPI live in `bench/.peers`, away from our own
environment; where the registries do not give them, `measure` raises and the run goes on.
"""

import json
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from bench.peers.shape import Load, Measured
from bench.processes import await_port, free_ports, running, used

HOME = Path(__file__).parents[1] / ".peers"
SERVICES = Path(__file__).parent / "services"


def install() -> tuple[str, str]:
    """Paths of the server and of a Python with the SDK, installed on first use."""
    npm = shutil.which("npm")
    server = HOME / "node_modules/.bin/restate-server"
    python = HOME / "venv/bin/python"
    if not server.exists():
        if npm is None:
            raise FileNotFoundError("npm is not installed")
        HOME.mkdir(exist_ok=True)
        _run(npm, "install", "--no-audit", "--no-fund", "--prefix", str(HOME),
             "@restatedev/restate-server")  # fmt: skip
    if not (HOME / "venv/.complete").exists():
        _run(sys.executable, "-m", "venv", str(HOME / "venv"))
        _run(str(python), "-m", "pip", "install", "-q", "restate-sdk", "hypercorn")
        (HOME / "venv/.complete").touch()
    return str(server), str(python)


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if done.returncode:
        raise OSError(f"{command[0]} failed: {done.stderr.strip().splitlines()[-1:]}")


def _post(url: str, body: Any) -> Any:
    request = urllib.request.Request(
        url, json.dumps(body).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=120) as answer:
        return json.loads(answer.read() or b"null")


def _register(admin: int, service: int) -> None:
    """The admin port listens before the server is whole."""
    end = time.monotonic() + 60
    while True:
        try:
            _post(f"http://127.0.0.1:{admin}/deployments", {"uri": f"http://127.0.0.1:{service}"})
            return
        except (urllib.error.URLError, ConnectionError):
            if time.monotonic() > end:
                raise
            time.sleep(0.1)


class _Ingress:
    def __init__(self, port: int) -> None:
        self.port = port

    def call(self, handler: str, size: int) -> float:
        # The key makes the call one that survives a lost connection, as our named launches do.
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/Bench/{handler}", json.dumps(size).encode(),
            {"content-type": "application/json", "idempotency-key": str(uuid.uuid4())},
        )  # fmt: skip
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.loads(answer.read())

    def sustained(self, load: Load) -> float:
        end = time.perf_counter() + load.seconds

        def one_after_another(_: int) -> int:
            done = 0
            while time.perf_counter() < end:
                self.call("fan", 1)
                done += 1
            return done

        start = time.perf_counter()
        with ThreadPoolExecutor(load.in_flight) as pool:
            done = sum(pool.map(one_after_another, range(load.in_flight)))
        return done / (time.perf_counter() - start)


def _shapes(load: Load, ingress: _Ingress, pids: tuple[int, ...], out: Measured, *, fan: str,
            chain: str) -> None:  # fmt: skip
    ingress.call(fan, 100)  # warm
    for _ in range(load.repeats):
        with used(pids) as usage:
            ingress.call(fan, load.fan_out)
        out.tasks_per_second.append(load.fan_out / usage.seconds)
        out.cpu_ms_per_task.append(usage.cpu * 1000 / load.fan_out)
        with used(pids) as usage:
            ingress.call(chain, load.chain)
        out.node_seconds.append(usage.seconds / load.chain)


def measure(load: Load, folder: Path) -> tuple[Measured, Measured]:
    """Across processes, inside one."""
    server, python = install()
    across, inside = Measured("Restate across processes"), Measured("Restate inside one process")
    ingress, admin, node, service, tokio = free_ports(5)
    settings = {
        "RESTATE_INGRESS__BIND_ADDRESS": f"127.0.0.1:{ingress}",
        "RESTATE_ADMIN__BIND_ADDRESS": f"127.0.0.1:{admin}",
        "RESTATE_BIND_ADDRESS": f"127.0.0.1:{node}",
        "RESTATE_TOKIO_CONSOLE_BIND_ADDRESS": f"127.0.0.1:{tokio}",
        "RESTATE_LISTEN_MODE": "tcp",
        "RESTATE_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "1",
    }
    start = time.perf_counter()
    with running(
        server, "--no-logo", "--base-dir", str(folder / "restate"),
        log=folder / "restate.log", environment=settings,
    ) as server_pid, running(
        python, "-m", "hypercorn", "--bind", f"127.0.0.1:{service}", "--log-level", "error",
        "restate_service:app", log=folder / "restate-service.log",
        environment={"PYTHONPATH": str(SERVICES)},
    ) as service_pid:  # fmt: skip
        await_port(admin)
        await_port(service)
        _register(admin, service)
        await_port(ingress)
        across.start_seconds = time.perf_counter() - start
        calls, pids = _Ingress(ingress), (server_pid, service_pid)
        _shapes(load, calls, pids, across, fan="fan", chain="chain")
        _shapes(load, calls, pids, inside, fan="steps", chain="steps_in_a_row")
        for _ in range(load.latencies):
            submitted = time.time()
            across.first_line_seconds.append(calls.call("fan", 1) - submitted)
        across.executions_per_second.append(calls.sustained(load))
    return across, inside
