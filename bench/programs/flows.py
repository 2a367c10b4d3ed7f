"""The no-op programs under measurement; a task answers when it began, in Unix nanoseconds.

Registered by `federation.py`; in a folder of their own, because a bundle takes its folder along.
"""

import time
from pathlib import Path

from whimbrel import task, workflow

FAN_OUT, CHAIN, SHORT_CHAIN = 1000, 500, 10


@task
def leaf(index: int) -> int:
    return time.time_ns()


@task
def join(starts: list[int]) -> int:
    return min(starts)


@task
def link(before: int) -> int:
    return before + 1


@task
def gate(folder: str, name: str) -> int:
    """Leaves a line when it begins and ends when it is let go."""
    with (Path(folder) / "starts").open("a") as starts:
        starts.write(f"{name} {time.time_ns()}\n")
    while not (Path(folder) / "open").exists():
        time.sleep(0.1)
    return 0


@workflow
def fan_out() -> int:
    return join(starts=[leaf(index=index) for index in range(FAN_OUT)])


@workflow
def chain() -> int:
    value = link(before=0)
    for _ in range(CHAIN - 1):
        value = link(before=value)
    return value


@task(warm=True)
def warm_leaf(index: int) -> int:
    return time.time_ns()


@task(warm=True)
def warm_link(before: int) -> int:
    return before + 1


@workflow
def warm_fan_out() -> int:
    return join(starts=[warm_leaf(index=index) for index in range(FAN_OUT)])


@workflow
def warm_chain() -> int:
    value = warm_link(before=0)
    for _ in range(CHAIN - 1):
        value = warm_link(before=value)
    return value


@workflow
def short_chain() -> int:
    value = link(before=0)
    for _ in range(SHORT_CHAIN - 1):
        value = link(before=value)
    return value


@workflow
def one(index: int) -> int:
    return leaf(index=index)


@workflow
def gated(folder: str, name: str) -> int:
    return gate(folder=folder, name=name)
