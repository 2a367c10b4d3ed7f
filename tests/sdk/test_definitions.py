"""Definitions and calls that can't mean anything: refused with file, line, name and remedy."""

from collections.abc import Callable
from datetime import datetime
from typing import Any, NamedTuple

import pytest
from whimbrel import Directory, File, Placement, Resources, task, workflow
from whimbrel.compiler import compile_workflow
from whimbrel.errors import InvalidInput


class Custom:
    pass


class Pair(NamedTuple):
    left: int
    right: str


@task
def whole(x: int) -> int:
    return x


@task
def half(x: float) -> float:
    return x / 2


@task
def pair() -> Pair:
    return Pair(1, "a")


@task
def flag() -> bool:
    return True


@task
def total(items: list[float]) -> float:
    return sum(items)


@task
def size(file: File) -> int:
    return len(file.open().read())


def no_type(x) -> int:
    return 1


def other_default(x: int = "a") -> int:
    return x


def bool_default(x: int = True) -> int:
    return x


def naive_default(x: datetime = datetime(2026, 1, 1)) -> int:
    return 1


def file_default(x: File = File("/etc/hostname")) -> int:  # noqa: B008
    return 1


def opaque(x: Custom) -> int:
    return 1


def opaque_result() -> Custom:
    return Custom()


def raw(x: bytes) -> int:
    return 1


def rest(*x: int) -> int:
    return 1


def named_rest(**x: int) -> int:
    return 1


def only_positional(x: int, /) -> int:
    return 1


def unknown_type(x: "Nowhere") -> int:  # noqa: F821
    return 1


async def asynchronous(x: int) -> int:
    return 1


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (no_type, "'x' of no_type has no type"),
        (other_default, "default of parameter 'x' of other_default is not int"),
        (bool_default, "is not int"),
        (naive_default, "no time zone"),
        (file_default, "can't be a default"),
        (opaque, "parameter 'x' of opaque: Custom can't travel"),
        (opaque_result, "output o0 of opaque_result"),
        (raw, "holds bytes"),
        (rest, "no fixed name"),
        (named_rest, "no fixed name"),
        (only_positional, "no fixed name"),
        (unknown_type, "Nowhere"),
        (asynchronous, "async"),
    ],
)
@pytest.mark.parametrize("decorate", [task, workflow])
def test_an_interface_that_cannot_travel(
    function: Callable[..., Any], words: str, decorate: Callable[..., Any]
) -> None:
    with pytest.raises(InvalidInput) as refused:
        decorate(function)
    assert words in refused.value.message
    assert refused.value.place == f"{__file__}:{function.__code__.co_firstlineno}"
    assert refused.value.remedy or "default" in words


def calls_unknown() -> int:
    return whole(y=1)


def calls_missing() -> int:
    return whole()


def calls_constant() -> int:
    return whole(x="a")


def calls_bool() -> int:
    return whole(x=flag())


def calls_float() -> int:
    return whole(x=half(x=1))


def calls_items() -> float:
    return total(items=[pair().right])


def calls_no_list() -> int:
    return whole(x=[whole(x=1)])


def calls_whole_result() -> int:
    return whole(x=pair())


def calls_file_constant() -> int:
    return size(file=File("/etc/hostname"))


def returns_other() -> str:
    return whole(x=1)


def returns_one_of_two() -> tuple[int, int]:
    return whole(x=1)


def calls_twice() -> int:
    return whole(1, x=2)


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (calls_unknown, "whole has no input 'y'"),
        (calls_missing, "whole needs x: int"),
        (calls_constant, "whole(x=...) is not int"),
        (calls_bool, "whole(x=...) takes int, not bool"),
        (calls_float, "takes int, not float"),
        (calls_items, "takes float, not str"),
        (calls_no_list, "takes int"),
        (calls_whole_result, "not the results of a whole call"),
        (calls_file_constant, "can't be a default or a constant"),
        (returns_other, "takes str, not int"),
        (returns_one_of_two, "not a tuple"),
        (calls_twice, "multiple values"),
    ],
)
def test_a_call_that_does_not_fit(function: Callable[[], Any], words: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        _ = workflow(function).graph
    assert words in refused.value.message
    first = function.__code__.co_firstlineno
    file, _, line = refused.value.place.rpartition(":")
    assert file == __file__
    assert int(line) in (first, first + 1)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"retires": 1}, "retires"),
        ({"retries": -1}, "retries"),
        ({"retries": 1.5}, "retries"),
        ({"timeout": -1}, "timeout"),
        ({"timeout": "1m"}, "timeout"),
        ({"container_image": 3}, "container_image"),
        ({"secret_requests": [3]}, "secret_requests"),
        ({"cache": True}, "cache_version"),
        ({"cache_ignore_input_vars": ["z"]}, "'z'"),
        ({"environment": {"A": 1}}, "strings"),
        ({"requests": {"cpu": 1}}, "Resources"),
    ],
)
def test_task_arguments(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidInput) as refused:

        @task(**options)
        def some(x: int) -> int:
            return x

    assert words in refused.value.message
    assert refused.value.place.startswith(__file__)


def test_workflow_arguments() -> None:
    with pytest.raises(InvalidInput, match="failure"):
        workflow(failure=1)(lambda: None)
    with pytest.raises(InvalidInput, match="failure_policy"):
        workflow(failure_policy="sometimes")


@pytest.mark.parametrize(
    "wrong",
    [{"cpu": "2 apples"}, {"mem": -1}, {"mem": "Gi"}, {"mem": [1]}, {"gpu": "500m"}, {"cpu": True}],
)
def test_quantities(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        Resources(**wrong)


def test_quantities_are_kubernetes() -> None:
    made = Resources(cpu="500m", mem="2Gi", gpu=1, ephemeral_storage="1.5G").to_spec()
    assert (made.cpu, made.mem_bytes, made.gpu) == (0.5, 2 << 30, 1)
    assert made.ephemeral_storage_bytes == 1_500_000_000


def test_placements() -> None:
    with pytest.raises(InvalidInput, match="mode"):
        Placement(mode="sometimes")
    with pytest.raises(InvalidInput, match="list of names"):
        Placement(regions="us-east")
    assert Placement(priority=7).to_spec().priority == 7
    for wrong in (1001, True, 1.5, "high"):
        with pytest.raises(InvalidInput, match="whole number"):
            Placement(priority=wrong)


def test_a_task_inside_a_function_is_refused_by_the_compiler() -> None:
    @task
    def hidden() -> int:
        return 1

    @workflow
    def uses() -> int:
        return hidden()

    with pytest.raises(InvalidInput, match="top level"):
        compile_workflow(uses, bundle="b")


def test_a_directory_is_no_file() -> None:
    @task
    def folder() -> Directory:
        return Directory("/")

    @workflow
    def uses() -> int:
        return size(file=folder())

    with pytest.raises(InvalidInput, match="takes File, not Directory"):
        _ = uses.graph
