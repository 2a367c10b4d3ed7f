"""`python -m bench profile`: where our processes spend their CPU, by process and by function.

Samples with py-spy from outside, so nothing is slowed down and no server has a hook for it; CPU per
process is the kernel's own figure. py-spy is installed into `bench/.peers` on first use.
"""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench import work
from bench.federation import Federation, federation, load_program
from bench.peers.restate import HOME
from bench.peers.shape import Load
from bench.processes import cpu_seconds

RATE = 200
"""Samples a second. More slows down what is sampled, fewer miss what is short."""
SHOWN = 14


@dataclass(frozen=True, slots=True)
class Profile:
    """Samples by function: in it (`own`), and in it or below it (`total`)."""

    samples: int
    own: Counter[str]
    total: Counter[str]


def sampler() -> Path:
    binary = HOME / "tools/bin/py-spy"
    if not binary.exists():
        subprocess.run(
            [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target",
             str(HOME / "tools"), "py-spy"],
            check=True,
        )  # fmt: skip
    return binary


def _short(frame: str) -> str:
    """`run (/long/path/site-packages/grpc/aio/_call.py)` -> `grpc/aio/_call.py:run`"""
    name, _, rest = frame.partition(" (")
    path = rest.rstrip(")").split(":")[0]
    for root in ("site-packages/", "lib/python3.11/", f"{Path(__file__).parents[1]}/"):
        path = path.rpartition(root)[2]
    return f"{path.removeprefix('sdk/')}:{name}"


def parse(text: str) -> Profile:
    """py-spy's raw form: frames with semicolons, outermost first, then a count."""
    own, total, samples = Counter[str](), Counter[str](), 0
    for line in text.splitlines():
        stack, _, count = line.rpartition(" ")
        frames = [_short(frame) for frame in stack.split(";") if " (" in frame]
        if not frames:
            continue
        samples += int(count)
        own[frames[-1]] += int(count)
        for frame in dict.fromkeys(frames):
            total[frame] += int(count)
    return Profile(samples, own, total)


def show(name: str, profile: Profile, cpu: float, whole: float, executed: int) -> str:
    per_item = f", {cpu * 1000 / executed:.2f} ms an item" if executed else ""
    lines = [
        f"{name}: {cpu:.2f} s CPU, {cpu / whole:.0%} of all{per_item}, {profile.samples} samples"
    ]
    if profile.samples:
        tables = (("in the function", profile.own), ("with what it calls", profile.total))
        for title, counter in tables:
            ours = counter if counter is profile.own else Counter({
                key: value for key, value in counter.items()
                if key.startswith(("control_plane", "router", "data_plane_agent", "whimbrel"))
            })  # fmt: skip
            lines.append(f"  {title}")
            lines += [f"    {count / profile.samples:6.1%}  {key}"
                      for key, count in ours.most_common(SHOWN)]  # fmt: skip
    return "\n".join(lines)


def sampled(
    whole: Federation, folder: Path, *, title: str, seconds: float, work: Callable[[], int]
) -> str:
    """`work` does one round and answers how many items it was."""
    roots = {name: pid for name, pid in whole.pids.items() if name != "supervisor"}
    before = {name: cpu_seconds([pid]) for name, pid in roots.items()}
    records: dict[str, subprocess.Popen[bytes]] = {}
    for name, pid in roots.items():
        if name in ("etcd", "temporal"):
            continue
        records[name] = subprocess.Popen(
            [sampler(), "record", "--pid", str(pid), "--subprocesses", "--format", "raw",
             "--rate", str(RATE), "--nonblocking", "--duration", "600",
             "--output", str(folder / f"{name.replace('/', '-')}.raw")],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
    time.sleep(1)
    end, items = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        items += work()
    cpu = {name: cpu_seconds([pid]) - before[name] for name, pid in roots.items()}
    for record in records.values():
        record.send_signal(signal.SIGINT)
    for record in records.values():
        record.wait(30)
    total = sum(cpu.values())
    parts = [f"== {title}: {items} items in {seconds:.0f} s, {total:.1f} s CPU, "
             f"{total * 1000 / max(1, items):.2f} ms an item"]  # fmt: skip
    for name, spent in sorted(cpu.items(), key=lambda item: -item[1]):
        raw = folder / f"{name.replace('/', '-')}.raw"
        text = raw.read_text() if raw.exists() else ""
        parts.append(show(name, parse(text), spent, total, items))
        raw.unlink(missing_ok=True)
    return "\n\n".join(parts)


def profiled(folder: Path, load: Load) -> str:
    if os.geteuid() and sys.platform == "linux":
        print("not root: py-spy may be refused by the kernel", file=sys.stderr)
    with federation(folder / "data") as whole, whole.client() as client:
        flows = work.register(client, load_program())
        work.warm_up(client, flows, len(whole.sandbox["regions"]))

        def round_of(flow: tuple[str, str], size: int) -> Callable[[], int]:
            def once() -> int:
                work.run(client, flow)
                return size

            return once

        def executions() -> int:
            out = work.Ours()
            short = Load(in_flight=load.in_flight, seconds=load.seconds)
            work.sustained(whole, flows, short, out)
            return int(out.executions_per_second[0] * load.seconds)

        return "\n\n".join([
            sampled(whole, folder, title="fan-outs", seconds=load.seconds,
                    work=round_of(flows.fan_out, load.fan_out)),
            sampled(whole, folder, title="chains", seconds=load.seconds,
                    work=round_of(flows.chain, load.chain)),
            sampled(whole, folder, title="one-task executions", seconds=1, work=executions),
        ])  # fmt: skip
