"""Options of a command line become JSON forms by the interface, or are refused with the way out."""

from typing import Any

import pytest
from whimbrel.cli.inputs import forms, parse, split_options
from whimbrel.errors import InvalidInput
from whimbrel.spec import Interface, Variable

INTEGER, NUMBER, TEXT = {"type": "integer"}, {"type": "number"}, {"type": "string"}


@pytest.mark.parametrize(
    ("text", "schema", "value"),
    [
        ("3", INTEGER, 3),
        ("3", NUMBER, 3.0),
        ("3", TEXT, "3"),
        ("yes", {"type": "boolean"}, True),
        ("[1, 2]", {"type": "array"}, [1, 2]),
        ('{"a": 1}', {"type": "object"}, {"a": 1}),
        ("none", {"anyOf": [TEXT, {"type": "null"}]}, None),
        ("4", {"anyOf": [TEXT, INTEGER]}, 4),
        ("b", {"$ref": "#/$defs/E", "$defs": {"E": {"type": "string", "enum": ["a", "b"]}}}, "b"),
    ],
)
def test_text_is_read_by_its_type(text: str, schema: dict[str, Any], value: object) -> None:
    assert parse(text, Variable("x", schema)) == value


@pytest.mark.parametrize(
    ("text", "schema"),
    [("x", INTEGER), ("1.5", INTEGER), ("maybe", {"type": "boolean"}), ("{}", {"type": "array"}),
     ("c", {"type": "string", "enum": ["a"]})],
)  # fmt: skip
def test_what_does_not_fit_is_named_with_an_example(text: str, schema: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse(text, Variable("depth", schema))
    assert "--depth" in caught.value.message
    assert "--depth" in caught.value.remedy


def test_options_are_split() -> None:
    assert split_options(["--a", "1", "--max-depth=2"]) == {"a": "1", "max_depth": "2"}


@pytest.mark.parametrize("words", [["x"], ["--a"], ["--a", "1", "--a", "2"]])
def test_malformed_options_are_refused(words: list[str]) -> None:
    with pytest.raises(InvalidInput):
        split_options(words)


INTERFACE = Interface(
    inputs=(Variable("depth", INTEGER), Variable("rate", NUMBER, required=False, default=0.1))
)


def test_options_win_over_the_document_and_defaults_stay_away() -> None:
    assert forms(INTERFACE, {"depth": "3"}, {"depth": 2, "rate": 1.0}) == {"depth": 3, "rate": 1.0}
    assert forms(INTERFACE, {"depth": "3"}, {}) == {"depth": 3}


def test_an_unknown_input_gets_a_suggestion() -> None:
    with pytest.raises(InvalidInput) as caught:
        forms(INTERFACE, {"dept": "3"}, {})
    assert "--depth" in caught.value.remedy


def test_a_missing_input_says_what_to_add() -> None:
    with pytest.raises(InvalidInput) as caught:
        forms(INTERFACE, {}, {})
    assert "depth is missing" in caught.value.message
    assert "--depth INT" in caught.value.remedy
