"""Where data may lie, as globs: what two of them allow together is never more than either."""

import pytest
from whimbrel.residency import allows, limits, narrowed


def test_no_globs_allow_everything() -> None:
    assert allows((), "anywhere")
    assert allows(("us-*", "eu-west"), "eu-west")
    assert not allows(("us-*",), "eu-west")


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        (("eu-*",), ("eu-west",), ("eu-west",)),
        (("eu-west",), ("eu-*",), ("eu-west",)),
        (("eu-*", "us-east"), ("us-*", "eu-w*"), ("us-east", "eu-w*")),
        (("eu-*",), ("us-*",), ()),
        (("eu-w*",), ("eu-w???",), ("eu-w???",)),
        (("a?",), ("a*",), ("a?",)),
        (("[ab]*",), ("[ab]*",), ()),
    ],
)
def test_narrowed(one: tuple[str, ...], other: tuple[str, ...], both: tuple[str, ...]) -> None:
    assert narrowed(one, other) == both
    regions = ["eu-west", "eu-north", "us-east", "us-west", "a", "ab", "abc"]
    for region in regions:
        if both and allows(both, region):
            assert allows(one, region)
            assert allows(other, region)


def test_a_star_is_not_inside_a_question_mark() -> None:
    assert narrowed(("a*",), ("a?",)) == ("a?",)


def test_limits_are_found_wherever_artifacts_are() -> None:
    bound = {"$artifact": {"uri": "u", "sha256": "0", "allowed_regions": ["eu-*"]}}
    free = {"$artifact": {"uri": "u", "sha256": "0", "allowed_regions": []}}
    assert limits({"a": [free, {"b": bound}], "c": 1}) == [("eu-*",)]
