"""A task that counts until its gate is open, and saves what it has when it is asked to move."""

import time
from pathlib import Path

from whimbrel import Placement, current_context, task, workflow


def note(folder: str, count: int) -> None:
    context = current_context()
    with (Path(folder) / "journal").open("a") as journal:
        journal.write(f"{context.node_id} {context.attempt} {context.epoch} {context.region} "
                      f"{count} {time.time_ns()}\n")  # fmt: skip


@task
def count(folder: str) -> int:
    checkpoint = current_context().checkpoint
    saved = checkpoint.read()
    reached = int(saved) if saved else 0
    while not (Path(folder) / "open").exists():
        reached += 1
        note(folder, reached)
        if current_context().migration_requested:
            checkpoint.write(str(reached).encode())
        time.sleep(0.02)
    return reached


@workflow
def saving(folder: str) -> int:
    return count(folder=folder)


@workflow(placement=Placement(mode="exclusive"))
def alone(folder: str) -> int:
    return count(folder=folder)
