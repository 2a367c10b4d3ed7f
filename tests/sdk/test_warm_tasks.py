"""`@task(warm=True)`: what a specification says of it, where it is refused."""

from dataclasses import replace

import pytest
from whimbrel import Placement, spec, task, workflow
from whimbrel.compiler import compile_workflow
from whimbrel.errors import InvalidInput


@task(warm=True)
def quick(x: int) -> int:
    return x + 1


@workflow
def chain(x: int) -> int:
    return quick(quick(x))


@workflow(placement=Placement(mode="exclusive"))
def once(x: int) -> int:
    return quick(x)


def test_a_warm_task_says_so_and_runs_here_as_any_other() -> None:
    assert compile_workflow(chain, bundle="b").tasks[0].warm
    assert chain(1) == 3


def test_digests_made_before_there_was_such_a_field_stay() -> None:
    warm = compile_workflow(chain, bundle="b").tasks[0]
    cold = replace(warm, warm=False)
    assert "warm" not in spec.tree(cold)
    assert spec.tree(warm)["warm"] is True
    assert spec.digest(cold) != spec.digest(warm)


def test_what_may_run_only_once_gets_pods_of_its_own() -> None:
    with pytest.raises(InvalidInput, match="once is exclusive"):
        compile_workflow(once, bundle="b")
