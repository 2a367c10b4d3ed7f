"""What is computed again: only what is needed, and all that was made from it."""

from control_plane.movement.lineage import to_declare
from tests.control_plane.movement.graphs import graph

DIAMOND = graph({"a": [], "b": ["a"], "c": ["a"], "d": ["b", "c"]}, result=["d"])


def declared(*, live: set[str], gone: set[str]) -> set[str]:
    reasons = to_declare(DIAMOND, live=live, unreadable={node: f"file:///{node}" for node in gone})
    return set(reasons)


def test_readable_outputs_are_kept() -> None:
    assert declared(live={"a", "b"}, gone=set()) == set()


def test_what_nobody_reads_any_more_is_kept() -> None:
    assert declared(live={"a", "b", "c"}, gone={"a"}) == set()


def test_what_is_read_again_takes_along_what_was_made_from_it() -> None:
    assert declared(live={"a", "b"}, gone={"a"}) == {"a", "b"}


def test_a_declared_node_reads_again_too() -> None:
    # d needs b, b is gone and needs a, a is gone as well; so c was made from a declared one.
    assert declared(live={"a", "b", "c"}, gone={"a", "b"}) == {"a", "b", "c"}


def test_a_result_that_nobody_can_read_has_not_arrived() -> None:
    assert declared(live={"a", "b", "c", "d"}, gone={"d"}) == {"d"}


def test_each_has_its_reason() -> None:
    reasons = to_declare(DIAMOND, live={"a", "b"}, unreadable={"a": "file:///a"})
    assert reasons["a"] == "file:///a can't be read from any live region"
    assert reasons["b"] == "made from a, which is computed again"
