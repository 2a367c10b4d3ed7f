"""Measures of work that nothing disturbs: fan-out, chain, first line, executions one by one.

Called by `__main__` with a running federation; each answers its rows' samples, nothing is printed.
"""

import asyncio
import statistics
import time
from dataclasses import dataclass, field
from types import ModuleType

from whimbrel import AsyncClient, Client

from bench.federation import Federation
from bench.peers.shape import Load
from bench.processes import used

WAIT_SECONDS = 300
"""For one execution. Too short takes a busy machine for a broken one."""


@dataclass(slots=True)
class Ours:
    tasks_per_second: list[float] = field(default_factory=list[float])
    cpu_ms_per_task: list[float] = field(default_factory=list[float])
    node_seconds: list[float] = field(default_factory=list[float])
    first_line_seconds: list[float] = field(default_factory=list[float])
    executions_per_second: list[float] = field(default_factory=list[float])


@dataclass(frozen=True, slots=True)
class Flows:
    """Names and versions under which the programs are registered."""

    one: tuple[str, str]
    fan_out: tuple[str, str]
    chain: tuple[str, str]
    gated: tuple[str, str]


def register(client: Client, program: ModuleType) -> Flows:
    found = {name: client.register(getattr(program, name))[0] for name in Flows.__annotations__}
    return Flows(**{name: (view.name, view.version) for name, view in found.items()})


def run(client: Client, flow: tuple[str, str], **inputs: int | str) -> dict[str, int]:
    """Launches, waits for SUCCEEDED, answers the outputs."""
    execution = client.launch(flow[0], inputs, version=flow[1])
    return dict(execution.wait(timeout=WAIT_SECONDS).outputs or {})


def warm_up(client: Client, flows: Flows, regions: int) -> None:
    """Every region has imported the code and its workers wait."""
    for index in range(4 * regions):
        run(client, flows.one, index=index)
    for _ in range(regions):
        run(client, flows.fan_out)


def fan_out(whole: Federation, client: Client, flows: Flows, load: Load, out: Ours) -> None:
    for _ in range(load.repeats):
        with used(whole.roots) as usage:
            run(client, flows.fan_out)
        out.tasks_per_second.append(load.fan_out / usage.seconds)
        out.cpu_ms_per_task.append(usage.cpu * 1000 / load.fan_out)


def chain(whole: Federation, client: Client, flows: Flows, load: Load, out: Ours) -> None:
    for _ in range(load.repeats):
        with used(whole.roots) as usage:
            run(client, flows.chain)
        out.node_seconds.append(usage.seconds / load.chain)


def first_line(client: Client, flows: Flows, load: Load, out: Ours) -> None:
    """From the call of `launch` to the first statement of the task, on one machine's clock."""
    for index in range(load.latencies):
        submitted = time.time_ns()
        (began,) = run(client, flows.one, index=index).values()
        out.first_line_seconds.append((began - submitted) / 1e9)


async def _sustained(endpoint: str, flow: tuple[str, str], load: Load) -> float:
    done, end = 0, time.perf_counter() + load.seconds
    async with AsyncClient(endpoint) as client:

        async def one_after_another() -> None:
            nonlocal done
            while time.perf_counter() < end:
                execution = await client.launch(flow[0], {"index": done}, version=flow[1])
                await execution.wait(timeout=WAIT_SECONDS)
                done += 1

        start = time.perf_counter()
        await asyncio.gather(*(one_after_another() for _ in range(load.in_flight)))
    return done / (time.perf_counter() - start)


def sustained(whole: Federation, flows: Flows, load: Load, out: Ours) -> float:
    """CPU milliseconds of all our processes an execution."""
    with used(whole.roots) as usage:
        rate = asyncio.run(_sustained(whole.sandbox["endpoint"], flows.one, load))
    out.executions_per_second.append(rate)
    return usage.cpu * 1000 / (rate * usage.seconds)


def idle_cores(whole: Federation, seconds: float) -> float:
    """Share of one core that all our processes use when nothing is asked of them."""
    with used(whole.roots) as usage:
        time.sleep(seconds)
    return usage.cpu / usage.seconds


def quantiles(samples: list[float]) -> tuple[float, float]:
    ordered = sorted(samples)
    return statistics.median(ordered), ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]
