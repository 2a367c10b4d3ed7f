"""JSON as an API server sends it: whole answers, and streams of events a line each.

Read by `api.py`; hands it dicts, or raises ApiDown for what is broken off.
"""

import json
from collections.abc import AsyncIterator
from typing import Any, cast

from data_plane_agent.pods.api_errors import ApiDown, Object


async def lines(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """By chunks: a line may be longer than any reader's limit."""
    rest = bytearray()
    async for chunk in chunks:
        start = len(rest)
        rest += chunk
        while (end := rest.find(b"\n", start)) >= 0:
            line = bytes(rest[:end])
            del rest[: end + 1]
            start = 0
            if line:
                yield line
    if rest:
        raise ApiDown("the API server broke off in the middle of an event")


def parsed(text: bytes) -> Object:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ApiDown("the API server's answer is broken off or no JSON") from error
    if not isinstance(value, dict):
        raise ApiDown("the API server's answer is no object")
    return cast(Object, value)


def slim(found: Object) -> Object:
    """Who set which field is half of an object's size, and nobody here asks."""
    part(found, "metadata").pop("managedFields", None)
    return found


def part(found: Object, name: str) -> Object:
    """An object within; {} when there is none."""
    value = found.get(name)
    return cast(Object, value) if isinstance(value, dict) else {}


def parts(found: Object, name: str) -> list[Object]:
    """The objects of a list within; [] when there is none."""
    value: Any = found.get(name)
    items = cast("list[Any]", value) if isinstance(value, list) else []
    return [cast(Object, item) for item in items if isinstance(item, dict)]


def text(found: Object, name: str) -> str:
    """ "" when there is none, or something else."""
    value = found.get(name)
    return value if isinstance(value, str) else ""
