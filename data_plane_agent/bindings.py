"""Where an input's value comes from: bindings resolved against what is known. Pure.

Called by `dag.py` for each node that becomes ready, and for the outputs of the workflow.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from whimbrel.spec import (
    Artifact,
    Binding,
    InputRef,
    ListBinding,
    Literal,
    MapBinding,
    OutputRef,
)


class Opaque(Exception):
    """A binding reads a value that is committed but can't be read from here."""

    def __init__(self, artifact: Artifact | None) -> None:
        super().__init__(artifact)
        self.uris = (artifact.uri,) if artifact else ()


def sources(binding: Binding) -> Iterable[str]:
    """The nodes that a binding reads."""
    match binding:
        case OutputRef(node=node):
            yield node
        case ListBinding(items):
            for item in items:
                yield from sources(item)
        case MapBinding(items):
            for item in items.values():
                yield from sources(item)
        case Literal() | InputRef():
            pass


def resolve(
    binding: Binding, *, inputs: Mapping[str, Any], outputs: Callable[[str], Mapping[str, Any]]
) -> Any:
    """The JSON form a binding stands for. `outputs` answers a node's outputs document, or raises
    Opaque.

    Raises LookupError when the value has no such part.
    """
    match binding:
        case Literal(value):
            return value
        case InputRef(name):
            return inputs[name]
        case OutputRef(node, name, path):
            value = outputs(node)[name]
            for step in path:
                value = _step(value, step)
            return value
        case ListBinding(items):
            return [resolve(item, inputs=inputs, outputs=outputs) for item in items]
        case MapBinding(items):
            return {
                key: resolve(item, inputs=inputs, outputs=outputs) for key, item in items.items()
            }


def _step(value: Any, step: str) -> Any:
    match value:
        case list():
            try:
                return value[int(step)]  # pyright: ignore[reportUnknownVariableType]  # JSON
            except ValueError:
                raise LookupError(f"a list has no part {step!r}") from None
        case dict():
            return value[step]  # pyright: ignore[reportUnknownVariableType]  # JSON
        case _:
            raise LookupError(f"{type(value).__name__} has no part {step!r}")
