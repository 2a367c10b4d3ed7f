"""`python -m bench`: our numbers beside the peers', taken in the same run, in one table.

Called by `make bench`. `python -m bench profile` says where our processes spend their CPU,
`python -m bench pods` measures runs in real clusters (as root).
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

from whimbrel import Client

from bench import loss, pods, profile, work
from bench.federation import Federation, federation, load_program
from bench.figures import Report, Row, percentile
from bench.peers import restate, temporal
from bench.peers.shape import Load, Measured
from bench.processes import calibration_ms, memory_bytes

MEASURES = ("import", "up", "fan-out", "chain", "first-line", "sustained", "idle", "loss")
FULL = Load(repeats=5, latencies=100, seconds=20)
QUICK = Load(repeats=3, latencies=30, seconds=5)
PEERS = {"fan-out", "chain", "first-line", "sustained"}


def import_seconds(repeats: int) -> tuple[float, ...]:
    """A new interpreter each time: with `import whimbrel`, less the median one without."""

    def spent(code: str) -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        return time.perf_counter() - start

    spent("import whimbrel")
    bare = sorted(spent("pass") for _ in range(repeats))[repeats // 2]
    return tuple(spent("import whimbrel") - bare for _ in range(repeats))


def up_seconds(folder: Path, repeats: int) -> tuple[float, ...]:
    """A fresh folder each time, three regions, from the command to its return."""
    samples: list[float] = []
    for index in range(repeats):
        whole = Federation(folder / f"up-{index}")
        samples.append(whole.start())
        whole.stop()
    return tuple(samples)


def peers(report: Report, load: Load, folder: Path) -> list[Measured]:
    found: list[Measured] = []
    measures: list[tuple[str, Callable[[Load, Path], Sequence[Measured]]]] = [
        ("Restate", restate.measure), ("Temporal", lambda a, b: (temporal.measure(a, b),)),
    ]  # fmt: skip
    for name, measure in measures:
        say(f"peer: {name}")
        try:
            found += measure(load, folder)
        except (OSError, subprocess.SubprocessError, RuntimeError) as error:
            report.note(f"{name} is left out: {error}")
    return found


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def beside(report: Report, measure: str, unit: str, ours: Sequence[float], attribute: str,
           others: list[Measured], *, goal: float = 0, higher: bool = False) -> None:  # fmt: skip
    """A row for each peer; the goal stands in the first."""
    row = Row(measure, unit, tuple(ours), goal, higher)
    measured = [peer for peer in others if getattr(peer, attribute)]
    if not measured:
        report.add(row)
    for index, peer in enumerate(measured):
        samples = tuple(getattr(peer, attribute))
        report.add(Row(
            measure, unit, tuple(ours), goal if index == 0 else 0, higher, peer.name, samples
        ))  # fmt: skip


def undisturbed(
    report: Report, whole: Federation, client: Client, flows: work.Flows, *, wanted: set[str],
    load: Load, others: list[Measured],
) -> None:  # fmt: skip
    out = work.Ours()
    if "fan-out" in wanted:
        say("fan-out")
        work.fan_out(whole, client, flows, load, out)
        shape = f"fan-out of {load.fan_out:,}, end to end"
        beside(report, shape, "tasks/s", out.tasks_per_second, "tasks_per_second", others,
               goal=3000, higher=True)  # fmt: skip
        beside(report, f"{shape}: CPU of all processes", "ms/task", out.cpu_ms_per_task,
               "cpu_ms_per_task", others, goal=0.7)  # fmt: skip
    if "chain" in wanted:
        say("chain")
        work.chain(whole, client, flows, load, out)
        beside(report, f"chain of {load.chain}", "s/node", out.node_seconds, "node_seconds",
               others, goal=0.002)  # fmt: skip
    if "first-line" in wanted:
        say("first line")
        work.first_line(client, flows, load, out)
        beside(report, "submit to first line, warm", "s", out.first_line_seconds,
               "first_line_seconds", others, goal=0.05)  # fmt: skip
        report.add(Row("submit to first line, warm: p95", "s",
                       (percentile(out.first_line_seconds, 0.95),)))  # fmt: skip
    if "sustained" in wanted:
        say("sustained")
        cpu = work.sustained(whole, flows, load, out)
        beside(report, f"one-task executions, {load.in_flight} at a time, {load.seconds:.0f} s",
               "1/s", out.executions_per_second, "executions_per_second", others, goal=200,
               higher=True)  # fmt: skip
        report.add(Row("one-task executions: CPU of all processes", "ms", (cpu,)))
    if "idle" in wanted:
        say("idle")
        report.add(Row("all processes idle", "cores", (work.idle_cores(whole, 5),)))
        for name in ("control-plane", "router", "agent/us-east"):
            size = memory_bytes([whole.pids[name]]) / 2**20
            goal = 100 if name.startswith("agent") else 0
            report.add(Row(f"memory of {name}, with workers", "MiB", (size,), goal))


def losses(report: Report, whole: Federation, client: Client, flows: work.Flows, *, folder: Path,
           count: int, runs: int) -> None:  # fmt: skip
    samples: dict[str, list[float]] = defaultdict(list)
    for index in range(count):
        say(f"loss of a region {index + 1}/{count}")
        found = loss.one_loss(whole, client, flows, folder=folder / f"loss-{index}", runs=runs)
        for stage, values in found.items():
            samples[stage] += values
    for stage in loss.STAGES:
        if values := samples[stage]:
            report.add(Row(
                f"SIGKILL of a region, lan: {stage}", "s", tuple(values),
                note=f"p95 {percentile(values, 0.95):.2f}, p99 {percentile(values, 0.99):.2f}, "
                f"{len(values)} runs",
            ))  # fmt: skip
    if samples["whole"]:
        p99 = percentile(samples["whole"], 0.99)
        report.add(Row(f"SIGKILL of a region {count} times: p99 to resume", "s", (p99,), 10))


def measure(report: Report, wanted: set[str], load: Load, folder: Path, *, count: int, runs: int,
            with_peers: bool) -> None:  # fmt: skip
    if "import" in wanted:
        say("import")
        report.add(Row("import of whimbrel", "s", import_seconds(9), 0.15))
    if "up" in wanted:
        say("up")
        report.add(Row("whimbrel up to ready, three regions", "s",
                       up_seconds(folder, load.repeats), 6))  # fmt: skip
    if not wanted - {"import", "up"}:
        return
    others = peers(report, load, folder) if with_peers and wanted & PEERS else []
    if wanted - {"import", "up", "loss"}:
        with federation(folder / "data") as whole, whole.client() as client:
            say("federation is up")
            flows = work.register(client, load_program())
            work.warm_up(client, flows, len(whole.sandbox["regions"]))
            undisturbed(report, whole, client, flows, wanted=wanted, load=load, others=others)
    if "loss" in wanted:
        # Every run holds a slot while it waits, also when two regions hold all of them.
        slots = {"WHIMBREL_AGENT_SLOTS": str(max(4, runs))}
        with federation(folder / "hurt", environment=slots) as whole, whole.client() as client:
            say("federation is up, to be hurt")
            flows = work.register(client, load_program())
            losses(report, whole, client, flows, folder=folder, count=count, runs=runs)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("what", nargs="?", choices=["profile", "pods"],
                        help="where the CPU goes, or runs in real clusters, instead")  # fmt: skip
    parser.add_argument("--quick", action="store_true", help="fewer repetitions, 3 losses")
    parser.add_argument("--only", action="append", choices=MEASURES, metavar="NAME",
                        help=f"may be repeated; of {', '.join(MEASURES)}")  # fmt: skip
    parser.add_argument("--json", type=Path, metavar="FILE", help="every sample, for comparisons")
    parser.add_argument("--no-peers", action="store_true", help="ours alone, no ratios")
    parser.add_argument("--losses", type=int, help="how often a region is killed")
    parser.add_argument(
        "--runs", type=int, help="executions during each loss; 100, or 20 with --quick"
    )
    given = parser.parse_args()
    load = QUICK if given.quick else FULL
    with tempfile.TemporaryDirectory(prefix="wbench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        if given.what == "profile":
            print(profile.profiled(folder, load))
            return
        report = Report()
        report.about = {
            "machine": platform.machine(), "cores": os.cpu_count(),
            "python": platform.python_version(), "calibration_ms": [calibration_ms()],
            "load": os.getloadavg()[0],
            "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }  # fmt: skip
        try:
            if given.what == "pods":
                pods.measure(report, quick=given.quick)
            else:
                measure(
                    report, set(given.only or MEASURES), load, folder,
                    count=given.losses or (3 if given.quick else 30),
                    runs=given.runs or (20 if given.quick else 100),
                    with_peers=not given.no_peers,
                )  # fmt: skip
        finally:
            # A run that breaks off still shows what it has.
            report.about["calibration_ms"].append(calibration_ms())
            before, after = report.about["calibration_ms"]
            print(
                f"{os.cpu_count()} cores, Python {platform.python_version()}, calibration "
                f"{before:.0f}/{after:.0f} ms, load at the start {report.about['load']:.1f}"
            )
            print(report.table())
            if given.json:
                given.json.write_text(json.dumps(report.as_json(), indent=2) + "\n")


if __name__ == "__main__":
    main()
