"""What a workflow function may not do with values that are not there yet: refused with the line."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from whimbrel import task, workflow
from whimbrel.errors import InvalidInput


@task
def number(x: int = 1) -> int:
    return x


@task
def numbers() -> list[int]:
    return [1]


USES: dict[str, Callable[[Any], Any]] = {
    "f-string": lambda p: f"{p}",
    "debugging f-string": lambda p: f"{p=}",
    "str": str,
    "percent": lambda p: "%s" % p,  # noqa: UP031 the point
    "if": lambda p: 1 if p else 2,
    "and": lambda p: p and 1,
    "not": lambda p: not p,
    "equal": lambda p: p == 1,
    "chain": lambda p: 0 < p < 10,
    "in": lambda p: 1 in p,
    "iterate": list,
    "unpack": lambda p: (lambda a, b: a)(*p),
    "len": len,
    "add": lambda p: p + 1,
    "int": int,
    "float": float,
    "index": lambda p: [1, 2][p],
    "path": lambda p: Path(p),
    "call": lambda p: p(),
}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("source", ["input", "output"])
def test_a_promise_is_no_value(use: str, source: str) -> None:
    @workflow
    def wrong(x: int) -> int:
        USES[use](x if source == "input" else number(x=x))
        return number(x=x)

    with pytest.raises(InvalidInput, match="is a promise") as refused:
        _ = wrong.graph
    file, _, line = refused.value.place.partition(":")
    assert file == __file__
    assert int(line) > 0
    assert "into a task" in refused.value.remedy


def test_parts_of_a_promise_that_are_not_there_are_refused() -> None:
    @workflow
    def wrong() -> int:
        return number(x=number().size)

    with pytest.raises(InvalidInput, match=r"is int, which has no \.size"):
        _ = wrong.graph


def test_a_cycle_is_refused_where_it_closes() -> None:
    @workflow
    def wrong() -> int:
        first = number()
        second = number(x=first)
        third = number(x=second)
        third >> first
        return third

    with pytest.raises(InvalidInput, match="cycle") as refused:
        _ = wrong.graph
    assert refused.value.place.startswith(__file__)


def test_a_node_does_not_follow_itself() -> None:
    @workflow
    def wrong() -> int:
        first = number()
        first >> first
        return first

    with pytest.raises(InvalidInput, match="cycle"):
        _ = wrong.graph


def test_an_input_has_no_order() -> None:
    @workflow
    def wrong(x: int) -> int:
        made = number()
        x >> made
        return made

    with pytest.raises(InvalidInput, match="orders two calls"):
        _ = wrong.graph


def test_unknown_overrides_are_refused() -> None:
    @workflow
    def wrong() -> int:
        return number().with_overrides(cache=True)

    with pytest.raises(InvalidInput, match="takes no cache"):
        _ = wrong.graph


class Counted(NamedTuple):
    count: int
    index: int


@task
def counted() -> Counted:  # names that every tuple has as methods
    return Counted(4, 5)


def test_outputs_may_be_called_like_methods() -> None:
    @workflow
    def right() -> int:
        return number(x=counted().count)

    assert right() == 4


def test_an_output_that_is_not_there() -> None:
    @workflow
    def wrong() -> int:
        return number(x=counted().total)

    with pytest.raises(InvalidInput, match="total") as refused:
        _ = wrong.graph
    assert refused.value.place.startswith(__file__)


def test_a_workflow_that_raises_is_refused_with_its_line() -> None:
    @workflow
    def wrong() -> int:
        return number(x={}["a"])

    with pytest.raises(InvalidInput, match="workflow wrong raised KeyError") as refused:
        _ = wrong.graph
    line = wrong.function.__code__.co_firstlineno + 2
    assert refused.value.place == f"{__file__}:{line}"


def test_items_are_parts() -> None:
    @workflow
    def right() -> int:
        return number(x=numbers()[0])

    assert right() == 1
