"""Text from a command line -> JSON forms, by the interface of a workflow (pure).

Called by `run`; what doesn't fit is refused with the name of the input, its type and an example.
"""

import difflib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from whimbrel.errors import InvalidInput
from whimbrel.spec import Interface, Variable

_TRUE, _FALSE = ("true", "yes", "1"), ("false", "no", "0")


def split_options(arguments: Sequence[str]) -> dict[str, str]:
    """`--a 1 --b=2` as {"a": "1", "b": "2"}; hyphens in a name count as underscores."""
    options: dict[str, str] = {}
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--") or word == "--":
            raise InvalidInput(
                f"unexpected argument {word!r}", remedy="inputs are written --name value"
            )
        name, equals, text = word[2:].partition("=")
        if not equals:
            if not rest:
                raise InvalidInput(f"--{name} needs a value", remedy=f"write --{name} VALUE")
            text = rest.pop(0)
        name = name.replace("-", "_")
        if name in options:
            raise InvalidInput(f"--{name} is given twice")
        options[name] = text
    return options


def forms(
    interface: Interface, options: Mapping[str, str], document: Mapping[str, Any]
) -> dict[str, Any]:
    """The inputs by name, options over the document; missing required ones are refused."""
    known = {variable.name: variable for variable in interface.inputs}
    for name in (*options, *document):
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            have = ", ".join(f"--{item}" for item in known) or "none"
            raise InvalidInput(
                f"the workflow has no input {name!r}",
                remedy=f"did you mean --{near[0]}?" if near else f"its inputs are: {have}",
            )
    given = dict(document) | {name: parse(text, known[name]) for name, text in options.items()}
    missing = [v for v in interface.inputs if v.required and v.name not in given]
    if missing:
        wanted = " ".join(f"--{v.name} {describe(v.schema).upper()}" for v in missing)
        raise InvalidInput(
            f"the input{'s' * (len(missing) > 1)} {', '.join(v.name for v in missing)} "
            f"{'are' if len(missing) > 1 else 'is'} missing",
            remedy=f"add {wanted}",
        )
    return given


def describe(schema: Mapping[str, Any]) -> str:
    """A type as a word or two."""
    if "$artifact" in json.dumps(schema):
        return "file"
    shape: Any = schema
    match shape:
        case {"enum": [*values]}:
            return "|".join(str(value) for value in values)
        case {"anyOf": [*options]}:
            return " or ".join(describe(option) for option in options)
        case {"format": "date-time"}:
            return "time"
        case {"type": "array" | "object"}:
            return "json"
        case {"type": str(kind)}:
            return {"integer": "int", "number": "float", "string": "text"}.get(kind, kind)
        case _:
            return "json"


def parse(text: str, variable: Variable) -> Any:
    schema = variable.schema
    for candidate in _alternatives(schema, schema):
        fits, value = _parse_one(text, candidate)
        if fits:
            return value
    raise InvalidInput(
        f"--{variable.name} {text!r} is not {describe(schema)}",
        remedy=f"e.g. --{variable.name} {_example(schema)}",
    )


def _alternatives(schema: Mapping[str, Any], root: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The simple types a schema allows, text last: it takes anything."""
    shape: Any = schema
    match shape:
        case {"$ref": str(ref)}:
            name = ref.rpartition("/")[2]
            return _alternatives(root.get("$defs", {}).get(name, {}), root)
        case {"anyOf": [*options]}:
            found = [item for option in options for item in _alternatives(option, root)]
            return sorted(found, key=lambda item: item.get("type") == "string")
        case _:
            return [schema]


def _parse_one(text: str, schema: Mapping[str, Any]) -> tuple[bool, Any]:
    try:
        match schema.get("type"):
            case "string":
                return text in schema.get("enum", (text,)), text
            case "integer":
                return True, int(text)
            case "number":
                return True, float(text)
            case "boolean":
                return text.lower() in (*_TRUE, *_FALSE), text.lower() in _TRUE
            case "null":
                return text in ("null", "none", "None"), None
            case "array":
                value = json.loads(text)
                return isinstance(value, list), value
            case "object":
                value = json.loads(text)
                return isinstance(value, dict), value
            case _:
                return True, json.loads(text)
    except ValueError:
        return False, None


def _example(schema: Mapping[str, Any]) -> str:
    shape: Any = schema
    match shape:
        case {"enum": [first, *_]}:
            return str(first)
        case {"type": "integer"}:
            return "3"
        case {"type": "number"}:
            return "0.5"
        case {"type": "boolean"}:
            return "true"
        case {"type": "array"}:
            return "'[1, 2]'"
        case _:
            return "'{\"a\": 1}'"
