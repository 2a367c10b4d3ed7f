"""Every mutation still fits the code, is a program without its guard, and names tests that are
there; `make mutations` runs them."""

import ast
from collections import Counter
from functools import cache

import pytest

from tests.mutations.catalogue import MUTATIONS
from tests.mutations.checkout import ROOT, Ran
from tests.mutations.mutation import Mutation, Unfit, functions, parsed, source
from tests.mutations.trial import Outcome, judge, names
from tests.mutations.witness import Seen


@cache
def text(file: str) -> str:
    return source(ROOT, file)


@cache
def named_in(file: str) -> set[str]:
    return {name for name, _ in functions(parsed(text(file)))}


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda one: one.name)
def test_it_fits(mutation: Mutation) -> None:
    changed = mutation.apply(text(mutation.file))
    ast.parse(changed)
    assert changed != text(mutation.file)
    assert mutation.tests
    for test in mutation.tests:
        file, _, name = test.partition("::")
        assert name.partition("[")[0] in named_in(file), f"{file} has no {name}"


def test_each_has_a_name_of_its_own() -> None:
    assert [
        name for name, count in Counter(one.name for one in MUTATIONS).items() if count > 1
    ] == []


@pytest.mark.parametrize(
    ("within", "old"), [("", "a"), ("f", "b"), ("gone", "a"), ("f", "nowhere")]
)
def test_what_does_not_fit_is_not_skipped(within: str, old: str) -> None:
    mutation = Mutation("x", "I1", "", "x.py", within, old, "", ("t",))
    with pytest.raises(Unfit, match="x"):
        mutation.apply("a = 1\ndef f():\n    a = b\n    return b\n")


def test_inside_of_its_function_only() -> None:
    mutation = Mutation("x", "I1", "", "x.py", "C.f", "a == 1", "True", ("t",))
    code = "def f():\n    return a == 1\nclass C:\n    def f(self):\n        return a == 1\n"
    assert mutation.apply(code) == code[: code.rindex("a == 1")] + "True\n"


@pytest.mark.parametrize(
    ("ran", "outcome", "by"),
    [
        (Ran(1, Seen({"t::a": "assert 1 == 2"}), ""), Outcome.CAUGHT, "t::a"),
        (Ran(0, Seen(passed=1), ""), Outcome.SURVIVED, ""),
        (Ran(0, Seen(skipped=1), ""), Outcome.BROKEN, ""),
        (Ran(1, Seen({"t::a": "NameError: x"}), ""), Outcome.BROKEN, ""),
        (Ran(2, Seen(broken={"t": "ImportError"}), ""), Outcome.BROKEN, ""),
        (Ran(4, Seen(), "no such test"), Outcome.BROKEN, ""),
        (Ran(-1, None, ""), Outcome.BROKEN, ""),
    ],
)
def test_only_a_failing_test_has_caught_it(ran: Ran, outcome: Outcome, by: str) -> None:
    assert judge(ran)[:2] == (outcome, by)


def test_a_test_without_parameters_means_all_of_them() -> None:
    assert names("f::a", "f::a[sqlite]")
    assert not names("f::a", "f::ab")
    assert not names("f::a[sqlite]", "f::a[postgres]")
