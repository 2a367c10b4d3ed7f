"""The program most fault tests run: three steps in a row, the middle one waits at a gate.

The test opens the gate. Every start of a step leaves a line in `journal`, so a test can tell what
really ran, from the outside.
"""

import time
from pathlib import Path

from whimbrel import File, current_context, task, workflow


def note(folder: str) -> None:
    context = current_context()
    with (Path(folder) / "journal").open("a") as journal:
        journal.write(f"{context.node_id} {context.attempt} {context.epoch} {context.region}\n")


def wait_for(path: Path) -> None:
    while not path.exists():
        time.sleep(0.02)


@task
def first(folder: str) -> int:
    note(folder)
    return 20


@task
def gate(folder: str, x: int) -> int:
    note(folder)
    wait_for(Path(folder) / "open")
    return x + 1


@task
def last(folder: str, x: int) -> int:
    note(folder)
    return 2 * x


@workflow
def steps(folder: str) -> int:
    start = first(folder=folder)
    middle = gate(folder=folder, x=start)
    return last(folder=folder, x=middle)


@task
def write(folder: str) -> File:
    note(folder)
    path = Path(current_context().working_directory) / "numbers.txt"
    path.write_text("20 1")
    return File(path)


@task
def count(folder: str) -> int:
    note(folder)
    return 7


@task
def total(folder: str, numbers: File, extra: int, x: int) -> int:
    note(folder)
    return sum(map(int, Path(numbers.path).read_text().split())) + extra + x


@workflow
def files(folder: str) -> int:
    """`write` leaves bytes in the region's store, `count` a small value: only it can be lost."""
    numbers = write(folder=folder)
    extra = count(folder=folder)
    middle = gate(folder=folder, x=extra)
    return total(folder=folder, numbers=numbers, extra=extra, x=middle)


@task
def save(folder: str, x: int) -> File:
    note(folder)
    path = Path(current_context().working_directory) / "number.txt"
    path.write_text(str(x))
    return File(path)


@task
def load(folder: str, number: File) -> int:
    note(folder)
    return int(Path(number.path).read_text())


@workflow
def gated_file(folder: str) -> int:
    """`save` writes to the region's store once the gate is open."""
    start = first(folder=folder)
    middle = gate(folder=folder, x=start)
    return load(folder=folder, number=save(folder=folder, x=middle))
