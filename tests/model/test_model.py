"""The protocol keeps its promises in every scenario, and each of its rules is needed for one.

Explores in processes of their own, all at once; each test waits for its own answer. What a rule is
for can be read with `python -m tests.model --without RULE --trace`.
"""

import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor

import pytest

from tests.model.explore import Found, explore
from tests.model.invariants import NAMES
from tests.model.mutations import MUTATIONS, UNSEEN, Mutation
from tests.model.report import story
from tests.model.scenarios import COMPLETE
from tests.model.setup import RULES, Setup

Answers = dict[str, Future[Found]]


@pytest.fixture(scope="module")
def answers() -> Iterator[Answers]:
    setups = [*COMPLETE, *(one.setup for one in (*MUTATIONS, *UNSEEN))]
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count() or 1, mp_context=spawn) as pool:
        yield {one.name: pool.submit(explore, one) for one in setups}
        pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("scenario", COMPLETE, ids=lambda one: one.name)
def test_nothing_breaks_in_any_order_of_events(scenario: Setup, answers: Answers) -> None:
    found = answers[scenario.name].result()
    assert not found.breach, "\n".join(story(found))
    assert found.complete


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda one: one.rule)
def test_without_the_rule_its_invariant_breaks(mutation: Mutation, answers: Answers) -> None:
    found = answers[mutation.setup.name].result()
    assert found.breach.split(" ")[0] == mutation.breaks, "\n".join(story(found))


@pytest.mark.parametrize("mutation", UNSEEN, ids=lambda one: one.rule)
def test_a_rule_that_is_said_to_be_a_second_guard_is_one(
    mutation: Mutation, answers: Answers
) -> None:
    """When this goes red the rule has become necessary: it belongs to MUTATIONS."""
    found = answers[mutation.setup.name].result()
    assert found.complete
    assert not found.breach, "\n".join(story(found))
    assert mutation.why


def test_every_rule_is_left_out_once() -> None:
    assert sorted(one.rule for one in (*MUTATIONS, *UNSEEN)) == sorted(RULES)


def test_every_invariant_is_broken_by_some_mutation() -> None:
    """I1 and I7 are exceptions: I1 is the fence's arithmetic, of which the model has no wrong
    version; I7 is judged together with I8."""
    assert {one.breaks for one in MUTATIONS} == set(NAMES) - {"I1", "I7"}
