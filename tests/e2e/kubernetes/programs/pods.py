"""Tasks for pods: each says what it does at the tests' door, some wait there until it is opened.

Nothing here needs more than the standard library, so that it runs in any image with an interpreter.
"""

import os
import signal
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

from whimbrel import File, Placement, Resources, current_context, task, workflow

SMALL = Resources(cpu="50m", mem="64Mi")


def note(door: str, text: str) -> None:
    """Said for certain: also over a link that is down now."""
    context = current_context()
    where = os.environ.get("WHIMBREL_HOST", "")
    body = "\n".join(
        (context.node_id, str(context.attempt), str(context.epoch), context.region, where, text)
    )
    while True:
        try:
            urllib.request.urlopen(door, data=body.encode(), timeout=3).close()
            return
        except OSError:
            time.sleep(0.2)


def opened(door: str) -> bool:
    try:
        urllib.request.urlopen(door, timeout=3).close()
        return True
    except urllib.error.HTTPError:
        return False
    except OSError:
        return False


def wait_at(door: str) -> None:
    while not opened(door):
        time.sleep(0.1)


@task(requests=SMALL)
def first(door: str) -> int:
    note(door, "first")
    return 20


@task(requests=SMALL)
def gate(door: str, x: int) -> int:
    note(door, "gate")
    print("the gate is reached", flush=True)
    wait_at(door)
    print("the gate is open", flush=True)
    return x + 1


@task(requests=SMALL)
def last(door: str, x: int) -> int:
    note(door, "last")
    return 2 * x


@workflow
def steps(door: str) -> int:
    start = first(door=door)
    middle = gate(door=door, x=start)
    return last(door=door, x=middle)


@task(requests=SMALL)
def write(door: str) -> File:
    note(door, "write")
    path = Path(current_context().working_directory) / "numbers.txt"
    path.write_text("20 1\n" * 50_000)
    return File(path)


@task(requests=SMALL)
def total(door: str, numbers: File, x: int) -> int:
    note(door, "total")
    return sum(map(int, Path(numbers.path).read_text().split())) + x


@workflow
def files(door: str) -> int:
    """`write` leaves megabytes in the region's store, `first` a number: only the file can be
    lost."""
    numbers = write(door=door)
    middle = gate(door=door, x=first(door=door))
    return total(door=door, numbers=numbers, x=middle)


@task(requests=SMALL)
def count(door: str, to: int) -> int:
    """Counts, saving each step; the last step waits for the door."""
    context = current_context()
    saved = context.checkpoint.read()
    done = int(saved) if saved else 0
    note(door, f"counts from {done}")
    while done < to or not opened(door):
        time.sleep(0.2)
        done = min(done + 1, to)
        context.checkpoint.write(str(done).encode())
        note(door, f"saved {done}")
    return done


@workflow
def counting(door: str, to: int = 10) -> int:
    return count(door=door, to=to)


@task(requests=SMALL)
def tick(door: str) -> int:
    """Stamps its output for as long as it runs, whether it reaches anybody or not; saves when it is
    asked to move."""
    context = current_context()
    saved = context.checkpoint.read()
    done = int(saved) if saved else 0
    run, over = door.rsplit("/", 1)[1], threading.Event()

    def at_the_door() -> None:
        wait_at(door)
        over.set()

    note(door, f"ticks from {done}")
    threading.Thread(target=at_the_door, daemon=True).start()
    while not over.wait(0.02):
        done += 1
        print(run, "ticks", context.epoch, context.attempt, time.time_ns(), flush=True)
        if context.migration_requested:
            context.checkpoint.write(str(done).encode())
    return done


@workflow(placement=Placement(mode="exclusive"))
def alone(door: str) -> int:
    return tick(door=door)


@task(requests=SMALL)
def stubborn(door: str) -> int:
    """Does not care about SIGTERM."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    note(door, "stubborn")
    while True:
        time.sleep(0.2)


@workflow
def stubbornly(door: str) -> int:
    return stubborn(door=door)


@task(requests=SMALL, limits=Resources(mem="96Mi"))
def grows() -> int:
    hoard = []
    while True:
        hoard.append(bytearray(b"x" * (8 << 20)))
        time.sleep(0.02)


@workflow
def growing() -> int:
    return grows()


@task(requests=SMALL)
def raises() -> int:
    print("about to fail", flush=True)
    raise ValueError("the lake is frozen")


@workflow
def raising() -> int:
    return raises()


@task(requests=SMALL, timeout=3)
def hangs() -> int:
    time.sleep(3600)
    return 0


@workflow
def hanging() -> int:
    return hangs()


@task(requests=SMALL, container_image="localhost/nobody-built-this:1")
def pictured() -> int:
    return 1


@workflow
def unbuilt() -> int:
    return pictured()


@task(requests=Resources(cpu=1000))
def enormous() -> int:
    return 1


@workflow
def too_large() -> int:
    return enormous()


@task(requests=SMALL)
def square(x: int) -> int:
    return x * x


@task(requests=SMALL)
def add_all(values: list[int]) -> int:
    return sum(values)


@workflow
def many() -> int:
    return add_all(values=[square(x=x) for x in range(200)])


@task(requests=SMALL, warm=True)
def step(x: int) -> int:
    return x + 1


@workflow
def chain() -> int:
    x = step(x=0)
    for _ in range(19):
        x = step(x=x)
    return x
