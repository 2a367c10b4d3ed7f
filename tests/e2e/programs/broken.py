"""Tasks that end badly, one way each."""

import os
import time

from whimbrel import Resources, task, workflow


@task
def raises() -> int:
    raise ValueError("the lake is frozen")


@task(limits=Resources(mem="256Mi"))
def grows() -> int:
    hoard = []
    while True:
        hoard.append(bytearray(b"x" * (16 << 20)))
        time.sleep(0.02)


@task(timeout=1)
def hangs() -> int:
    time.sleep(3600)
    return 0


@task
def vanishes() -> int:
    os._exit(7)


@workflow
def raising() -> int:
    return raises()


@workflow
def growing() -> int:
    return grows()


@workflow
def hanging() -> int:
    return hangs()


@workflow
def vanishing() -> int:
    return vanishes()
