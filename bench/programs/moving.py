"""Programs under measurement that are moved while they run; in a folder of their own bundle.

`stamps` is where each try leaves the time of everything it does: region, epoch, nanoseconds.
"""

import os
import time
from pathlib import Path

from whimbrel import Placement, current_context, task, workflow

CHECKPOINT_BYTES = 10_000_000
STEP_SECONDS = 0.05


def stamp(folder: str, name: str, what: str) -> None:
    context = current_context()
    line = f"{what} {context.region} {context.epoch} {context.attempt} {time.time_ns()}\n"
    with (Path(folder) / f"{name}.stamps").open("a") as stamps:
        stamps.write(line)


@task
def steps(folder: str, name: str) -> int:
    """Counts until it is let go; what it has counted is in a checkpoint of 10 MB, saved when it is
    asked to move and once a second."""
    checkpoint = current_context().checkpoint
    saved = checkpoint.read()
    count = int.from_bytes(saved[:8], "big") if saved else 0
    body = os.urandom(CHECKPOINT_BYTES)
    stamp(folder, name, "begin")
    while not (Path(folder) / "open").exists():
        count += 1
        stamp(folder, name, "step")
        if current_context().migration_requested or count % 20 == 0:
            checkpoint.write(count.to_bytes(8, "big") + body)
        time.sleep(STEP_SECONDS)
    return count


@workflow
def stepping(folder: str, name: str) -> int:
    return steps(folder=folder, name=name)


@task
def alone(folder: str, name: str) -> int:
    """Stamps as fast as it can be told from a second copy of itself."""
    stamp(folder, name, "begin")
    while not (Path(folder) / "open").exists():
        stamp(folder, name, "step")
        time.sleep(0.005)
    return 0


@workflow(placement=Placement(mode="exclusive"))
def exclusive(folder: str, name: str) -> int:
    return alone(folder=folder, name=name)
