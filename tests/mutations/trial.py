"""Takes one guard out of a copy and sees whether its tests notice.

Called by `__main__.py` on a worker's thread; answers what it found, puts the guard back.
"""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

import pytest

from tests.mutations.checkout import Checkout, Ran
from tests.mutations.mutation import Mutation, Unfit

SECONDS = 120.0
"""For the tests of one mutation. Shorter: a busy machine looks like one that hangs."""
NOT_THE_GUARD = ("NameError", "ImportError", "ModuleNotFoundError", "SyntaxError", "UnboundLocal")
"""Errors of a mutation that is no program any more: they say nothing about the guard."""


class Outcome(StrEnum):
    CAUGHT = "caught"
    SURVIVED = "SURVIVED"
    BROKEN = "broken"


@dataclass(frozen=True, slots=True)
class Found:
    """`caught_by` is the first test that failed, `said` its error, or what is broken."""

    mutation: Mutation
    outcome: Outcome
    caught_by: str = ""
    said: str = ""
    seconds: float = 0.0

    def as_json(self) -> dict[str, Any]:
        what = asdict(self.mutation)
        kept = {key: what[key] for key in ("name", "invariant", "guard", "file")}
        return kept | {
            "outcome": self.outcome.value,
            "caught_by": self.caught_by,
            "said": self.said,
            "seconds": round(self.seconds, 2),
        }


def attempt(mutation: Mutation, checkout: Checkout, *, green: bool) -> Found:
    """`green`: its tests pass as long as the guard is there."""
    if not green:
        said = "its tests are not there, or don't pass with the guard either"
        return Found(mutation, Outcome.BROKEN, said=said)
    begun = time.monotonic()
    try:
        with checkout.without(mutation):
            ran = checkout.run(mutation.tests, seconds=SECONDS, first=True)
    except Unfit as error:
        return Found(mutation, Outcome.BROKEN, said=str(error))
    outcome, by, said = judge(ran)
    return Found(mutation, outcome, by, said, time.monotonic() - begun)


def judge(ran: Ran) -> tuple[Outcome, str, str]:
    if ran.seen is None:
        return Outcome.BROKEN, "", f"no end within {SECONDS:g} s"
    for test, said in ran.seen.failed.items():
        if said.startswith(NOT_THE_GUARD):
            return Outcome.BROKEN, "", f"{test}: {said}"
        return Outcome.CAUGHT, test, said
    if ran.seen.broken or ran.code not in (0, 1):
        said = next(iter(ran.seen.broken.values()), ran.output[-500:])
        return Outcome.BROKEN, "", said
    if not ran.seen.passed:
        return Outcome.BROKEN, "", "none of its tests ran: they were skipped"
    return Outcome.SURVIVED, "", ""


def green(checkout: Checkout, tests: Sequence[str]) -> set[str]:
    """Those of `tests` that are there and pass with every guard in its place; `tests` as a
    catalogue names them."""
    ran = checkout.run(tests, seconds=SECONDS * 3, first=False)
    gone = {test for test in tests if f"/{test.partition('[')[0]}\n" in ran.output}
    if gone and ran.code == pytest.ExitCode.USAGE_ERROR:  # then none of them was run
        return green(checkout, [test for test in tests if test not in gone])
    if ran.seen is None or ran.seen.broken or ran.code not in (0, 1):
        raise Unfit(f"the tests can't be run without any mutation:\n{ran.output[-2000:]}")
    return {test for test in tests if not any(names(test, one) for one in ran.seen.failed)}


def names(test: str, failed: str) -> bool:
    """A test without its parameters in brackets means all of them."""
    return failed == test or failed.startswith((f"{test}[", f"{test}::"))
