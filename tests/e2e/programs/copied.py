"""Runs whose data is copied to other regions, or may not leave its own."""

from pathlib import Path

from steps import count, gate, total, write
from whimbrel import Placement, current_context, task, workflow


@workflow(placement=Placement(replicate=["*"]))
def copied(folder: str) -> int:
    """As `files` of steps.py; a region that is lost takes nothing with it."""
    numbers = write(folder=folder)
    extra = count(folder=folder)
    middle = gate(folder=folder, x=extra)
    return total(folder=folder, numbers=numbers, extra=extra, x=middle)


def card() -> str:
    """Not to be found in the code."""
    return "-".join(["4111", "2222", "3333"])


@task
def secret() -> str:
    print(f"card {card()}")
    return card()


@task
def digits(text: str) -> int:
    return len(text)


@task
def refuse(text: str) -> int:
    raise ValueError(f"card {text} is refused in {current_context().region}, {Path.cwd()}")


@workflow(placement=Placement(regions=["eu-*"]))
def kept() -> str:
    text = secret()
    digits(text=text)
    return text


@workflow(placement=Placement(regions=["eu-*"]))
def broken() -> int:
    return refuse(text=secret())
