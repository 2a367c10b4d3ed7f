"""Many short steps and their sum."""

import time

from whimbrel import task, workflow

COUNT = 300


@task
def one(x: int) -> int:
    time.sleep(0.01)
    return x


@task
def total(xs: list[int]) -> int:
    return sum(xs)


@workflow
def many() -> int:
    return total(xs=[one(x=x) for x in range(COUNT)])
