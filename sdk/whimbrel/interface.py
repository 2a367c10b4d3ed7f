"""The typed interface of a function: inputs, defaults, named outputs, and which type fits which.

Made by `@task` and `@workflow` at definition, where everything that can't travel is refused with
its line.
"""

import dataclasses
import inspect
import types
import typing
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, Literal, Union, cast

from whimbrel import place, spec, values
from whimbrel.errors import InvalidInput

REQUIRED: Any = inspect.Parameter.empty
Form = Literal["none", "one", "many"]


@dataclasses.dataclass(frozen=True)
class Interface:
    """`outputs` by name.

    `form` tells how the function returns them, `named` the NamedTuple if there is one.
    """

    inputs: Mapping[str, Any]
    defaults: Mapping[str, Any]
    outputs: Mapping[str, Any]
    form: Form
    signature: inspect.Signature
    named: type[Any] | None = None
    annotated: bool = True

    @cached_property
    def wire(self) -> spec.Interface:
        return spec.Interface(
            inputs=tuple(self._input(name) for name in self.inputs),
            outputs=tuple(
                spec.Variable(name, values.schema(kind)) for name, kind in self.outputs.items()
            ),
        )

    def _input(self, name: str) -> spec.Variable:
        kind = self.inputs[name]
        if name not in self.defaults:
            return spec.Variable(name, values.schema(kind))
        default = values.to_json(self.defaults[name], kind)
        return spec.Variable(name, values.schema(kind), required=False, default=default)

    def split(self, result: Any) -> dict[str, Any]:
        """What the function returned, by output name."""
        match self.form:
            case "none":
                if result is not None and not self.annotated:
                    raise InvalidInput(
                        f"returned {type(result).__name__}, but no return type is written",
                        remedy="annotate it: def ...(...) -> TYPE",
                    )
                return {}
            case "one":
                return dict(zip(self.outputs, [result], strict=True))
            case "many":
                if not isinstance(result, tuple):
                    raise InvalidInput(f"returned {type(result).__name__}, not a tuple")
                items = cast("tuple[Any, ...]", result)
                if len(items) != len(self.outputs):
                    raise InvalidInput(
                        f"returned {len(items)} values, its return type names {len(self.outputs)}"
                    )
                return dict(zip(self.outputs, items, strict=True))

    def join(self, outputs: Mapping[str, Any]) -> Any:
        """The function's own return value from its outputs."""
        match self.form:
            case "none":
                return None
            case "one":
                return next(iter(outputs.values()))
            case "many":
                items = [outputs[name] for name in self.outputs]
                return self.named(*items) if self.named else tuple(items)


def of(function: Callable[..., Any]) -> Interface:
    """Raises InvalidInput with the line of what is wrong."""
    if inspect.iscoroutinefunction(function):
        raise InvalidInput(
            f"{function.__name__} is async, which is not served yet",
            remedy="write `def` and call asyncio.run(...) inside",
            place=place.of_function(function),
        )
    signature = inspect.signature(function)
    try:
        hints = typing.get_type_hints(inspect.unwrap(function), include_extras=True)
    except Exception as cause:
        raise InvalidInput(
            f"an annotation of {function.__name__} can't be resolved: {cause}",
            remedy="define or import the type above the function, at module level",
            place=place.of_function(function),
        ) from cause
    inputs: dict[str, Any] = {}
    defaults: dict[str, Any] = {}
    for parameter in signature.parameters.values():
        inputs[parameter.name] = _input(function, parameter, hints, defaults)
    outputs, form, named = _outputs(hints.get("return"))
    for name, kind in outputs.items():
        _checked(function, kind, what=f"the output {name} of {function.__name__}")
    annotated = "return" in hints
    return Interface(inputs, defaults, outputs, form, signature, named, annotated)


def _input(
    function: Callable[..., Any],
    parameter: inspect.Parameter,
    hints: Mapping[str, Any],
    defaults: dict[str, Any],
) -> Any:
    name = parameter.name
    where = f"parameter {name!r} of {function.__name__}"
    if parameter.kind not in (
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        inspect.Parameter.KEYWORD_ONLY,
    ):
        raise InvalidInput(
            f"{where}: *, ** and positional-only parameters have no fixed name or type",
            remedy="name each input, or take a list or a dict",
            place=place.of_function(function, parameter=name),
        )
    if name not in hints:
        raise InvalidInput(
            f"{where} has no type",
            remedy=f"annotate it, e.g. `{name}: int`",
            place=place.of_function(function, parameter=name),
        )
    _checked(function, hints[name], what=where, parameter=name)
    if parameter.default is not REQUIRED:
        defaults[name] = parameter.default
        try:
            values.to_json(parameter.default, hints[name], what=f"the default of {where}")
        except InvalidInput as error:
            raise InvalidInput(
                error.message,
                remedy=error.remedy or f"give a default of type {values.name_of(hints[name])}",
                place=place.of_function(function, parameter=name),
            ) from error
    return hints[name]


def _checked(function: Callable[..., Any], kind: Any, *, what: str, parameter: str = "") -> None:
    try:
        values.schema(kind)
    except InvalidInput as error:
        raise InvalidInput(
            f"{what}: {error.message}",
            remedy=error.remedy,
            place=place.of_function(function, parameter=parameter),
        ) from error


def _outputs(kind: Any) -> tuple[dict[str, Any], Form, type[Any] | None]:
    if kind is None or kind is type(None):
        return {}, "none", None
    if isinstance(kind, type) and hasattr(kind, "_fields"):  # a NamedTuple
        fields = typing.get_type_hints(kind, include_extras=True)
        return fields, "many", cast("type[Any]", kind)
    if typing.get_origin(kind) is tuple:
        items = typing.get_args(kind)
        if items and Ellipsis not in items:
            return {f"o{index}": item for index, item in enumerate(items)}, "many", None
    return {"o0": kind}, "one", None


def fits(source: Any, target: Any) -> bool:
    """May a value of type `source` be given to a parameter of type `target`?"""
    source, target = _plain(source), _plain(target)
    if source == target or target is Any or source is Any:
        return True
    if (members := _members(source)) is not None:
        return all(fits(member, target) for member in members)
    if (members := _members(target)) is not None:
        return any(fits(source, member) for member in members)
    origin, wanted = typing.get_origin(source), typing.get_origin(target)
    if (origin or source) is (wanted or target):
        given, needed = typing.get_args(source), typing.get_args(target)
        if not given or not needed:  # a bare list or dict says nothing of its items
            return True
        return len(given) == len(needed) and all(map(fits, given, needed))
    if origin or wanted or not isinstance(source, type) or not isinstance(target, type):
        return False
    if source is bool:
        return target is bool
    return issubclass(source, target) or (source is int and target is float)


def _plain(kind: Any) -> Any:
    kind = type(None) if kind is None else kind
    return kind.__origin__ if hasattr(kind, "__metadata__") else kind


def _members(kind: Any) -> tuple[Any, ...] | None:
    return typing.get_args(kind) if typing.get_origin(kind) in (Union, types.UnionType) else None


def part(kind: Any, step: str | int) -> Any:
    """The type of an attribute or item of a value of type `kind`.

    LookupError when there is none.
    """
    kind = _plain(kind)
    match typing.get_origin(kind) or kind, typing.get_args(kind):
        case builtins_list, (item,) if builtins_list is list and isinstance(step, int):
            return item
        case builtins_tuple, items if builtins_tuple is tuple and isinstance(step, int):
            return items[step]
        case builtins_dict, (_, item) if builtins_dict is dict and isinstance(step, str):
            return item
        case builtins_bare, () if builtins_bare in (list, dict):
            return Any
        case owner, _ if isinstance(owner, type) and isinstance(step, str):
            known = cast("type[Any]", owner)
            if dataclasses.is_dataclass(known) or hasattr(known, "__pydantic_fields__"):
                return typing.get_type_hints(known, include_extras=True)[step]
        case _:
            pass
    raise LookupError(step)
