"""Python values <-> their JSON forms, by the type an interface names (pydantic does the work).

Called by `task.py` around every call and by the compiler for constants and defaults. Strict: a
whole number fits a float, nothing else is bent. pydantic is imported at the first type, not with
the package.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, Any, cast

from whimbrel.artifacts import Directory, File, NoStore, Store
from whimbrel.errors import InvalidInput
from whimbrel.spec import Artifact, canonical

if TYPE_CHECKING:
    from pydantic import TypeAdapter, ValidationError

__all__ = ["Directory", "File", "NoStore", "Store", "from_json", "name_of", "schema", "to_json"]

_NO_STORE = NoStore()


def schema(kind: Any) -> dict[str, Any]:
    """JSON Schema of the JSON form. Raises InvalidInput for a type that has none."""
    return _Form.of(kind).schema


def to_json(
    value: Any,
    kind: Any,
    store: Store = _NO_STORE,
    *,
    what: str = "the value",
    artifacts: list[Artifact] | None = None,
) -> Any:
    """The JSON form of `value`; files in it are put into `store` and noted in `artifacts`.

    Raises InvalidInput, without a place, when the value is not of type `kind`.
    """
    from pydantic import ValidationError
    from pydantic_core import PydanticSerializationError

    form = _Form.of(kind)
    context = {"store": store, "artifacts": artifacts}
    try:
        checked = form.adapter.validate_python(value, strict=True, context=context)
        if form.has_times:
            _refuse_naive(checked)
        document = form.adapter.dump_python(checked, mode="json", context=context, warnings="error")
        canonical(document)
    except ValidationError as cause:
        raise InvalidInput(f"{what} {_complaint(cause, kind, value)}") from cause
    except PydanticSerializationError as cause:
        if isinstance(cause.__cause__, OSError):  # the store's own trouble is not the value's
            raise cause.__cause__ from None
        text = str(cause.__cause__ or cause).splitlines()[0]
        raise InvalidInput(f"{what} is not {name_of(kind)}: {text}") from cause
    except ValueError as cause:
        text = "NaN and infinity have no JSON form" if "JSON compliant" in str(cause) else cause
        raise InvalidInput(f"{what}: {text}") from cause
    return document


def from_json(
    document: Any, kind: Any, store: Store = _NO_STORE, *, what: str = "the value"
) -> Any:
    """The value again. Files in it are fetched from `store` when they are first read."""
    from pydantic import ValidationError

    form = _Form.of(kind)
    try:
        text = json.dumps(document, allow_nan=False)
        value = form.adapter.validate_json(text, strict=True, context={"store": store})
        if form.has_times:
            _refuse_naive(value)
    except ValidationError as cause:
        raise InvalidInput(f"{what} {_complaint(cause, kind, document)}") from cause
    except ValueError as cause:
        raise InvalidInput(f"{what}: {cause}") from cause
    return value


def name_of(kind: Any) -> str:
    """The type as a person would write it."""
    if kind is type(None):
        return "None"
    return (
        kind.__name__
        if isinstance(kind, type) and not _arguments(kind)
        else (str(kind).replace("typing.", ""))
    )


def _arguments(kind: Any) -> tuple[Any, ...]:
    return getattr(kind, "__args__", ())


@dataclasses.dataclass(frozen=True, slots=True)
class _Form:
    adapter: "TypeAdapter[Any]"
    schema: dict[str, Any]
    has_times: bool

    @staticmethod
    def of(kind: Any) -> "_Form":
        try:
            return _form(kind)
        except TypeError:  # metadata of an Annotated may not be hashable
            return _form.__wrapped__(kind)


@cache
def _form(kind: Any) -> _Form:
    from pydantic import PydanticUserError, TypeAdapter
    from pydantic.errors import PydanticSchemaGenerationError, PydanticUndefinedAnnotation

    try:
        adapter: TypeAdapter[Any] = TypeAdapter(kind)
        made = adapter.json_schema()
    except (PydanticSchemaGenerationError, PydanticUndefinedAnnotation, PydanticUserError) as cause:
        raise InvalidInput(
            f"{name_of(kind)} can't travel between tasks",
            remedy="write it to a file and hand on a File, or use a dataclass",
        ) from cause
    text = json.dumps(made)
    if '"format": "binary"' in text:
        raise InvalidInput(
            f"{name_of(kind)} holds bytes, which can't travel inline",
            remedy="write them to a file and hand on a File",
        )
    return _Form(adapter, made, '"format": "date-time"' in text)


def _complaint(error: "ValidationError", kind: Any, value: Any) -> str:
    first = error.errors(include_url=False, include_context=False, include_input=True)[0]
    where = ".".join(str(step) for step in first["loc"])
    why = first["msg"].removeprefix("Value error, ")
    short = repr(first.get("input", value))
    short = short if len(short) <= 60 else f"{short[:57]}..."
    at = f" at {where}" if where else ""
    return f"is not {name_of(kind)}: {why}{at} (got {short})"


def _refuse_naive(value: Any) -> None:
    match value:
        case datetime():
            if value.tzinfo is None:
                raise ValueError(f"{value.isoformat()} has no time zone: add tzinfo=timezone.utc")
        case str() | bytes():
            return
        case Mapping():
            for item in cast("Mapping[Any, Any]", value).values():
                _refuse_naive(item)
        case Sequence() | set() | frozenset():
            for item in cast("Sequence[Any]", value):
                _refuse_naive(item)
        case _ if dataclasses.is_dataclass(value) and not isinstance(value, type):
            for field in dataclasses.fields(value):
                _refuse_naive(getattr(value, field.name))
        case _ if hasattr(value, "__pydantic_fields__"):
            for item in cast("dict[str, Any]", vars(value)).values():
                _refuse_naive(item)
        case _:
            return
