"""What a task's process or pod wrote as its answer, before anybody believes a field of it. Pure.

Called by `orders.py`, `warm/talk.py` and `attempt_answers.end_of`, which turns what passes into
events. It is written beside the user's code, so anything may stand there; what passes can be said
to the ledger.
"""

import json
from typing import Any, cast

from whimbrel.runtime_frames import Message

from data_plane_agent.documents import outputs_of

MOST = 2**63 - 1
"""Of any number: the wire takes no more."""


def parsed(text: str | bytes) -> Message | None:
    try:
        value = clean(json.loads(text))
    except (ValueError, RecursionError):
        return None
    return cast("Message", value) if isinstance(value, dict) else None


def clean(value: Any) -> Any:
    """With '?' for lone surrogates, as in the text of an error about a file name that is no UTF-8:
    they can't be sent. RecursionError for endless nesting."""
    match value:
        case str():
            return value if value.isascii() else value.encode("utf-8", "replace").decode()
        case dict():
            fields = cast("dict[str, Any]", value)
            return {clean(name): clean(item) for name, item in fields.items()}
        case list():
            return [clean(item) for item in cast("list[Any]", value)]
        case _:
            return value


def is_number(value: Any) -> bool:
    return type(value) is int and 0 <= value <= MOST  # True is an int, too


def complete(message: Message | None) -> bool:
    """Whether all fields are there, of the kinds that `end_of` takes."""
    match message:
        case {
            "t": "done",
            "d": str(),
            "s": begun,
            "e": ended,
            "value": str(text),
            "digest": str(),
            "artifacts": list(),
        }:
            written = cast("list[Any]", message["artifacts"])
            numbers = is_number(begun) and is_number(ended)
            known = "offloaded" in message and all(map(is_artifact, written)) and _may(message)
            there = bool(message["offloaded"]) or outputs_of(text) is not None
            return numbers and known and there
        case {
            "t": "broke",
            "s": begun,
            "e": ended,
            "owner": "user" | "system" | "config",
            "kind": str(),
            "message": str(),
            "tb": str(),
            "unreadable": list(),
        }:
            unreadable = cast("list[Any]", message["unreadable"])
            numbers = is_number(begun) and is_number(ended)
            return numbers and all(isinstance(uri, str) for uri in unreadable) and _may(message)
        case _:
            return False


def _may(message: Message) -> bool:
    optional = [message.get(name) for name in ("offloaded", "stdout", "stderr")]
    return all(fields is None or is_artifact(fields) for fields in optional)


def is_artifact(fields: Any) -> bool:
    match fields:
        case {"uri": str(), "sha256": str(), "bytes": size, "region": str(), "kind": str()}:
            allowed = fields.get("allowed_regions", [])
            texts = isinstance(allowed, list | tuple) and all(isinstance(x, str) for x in allowed)  # pyright: ignore[reportUnknownVariableType]  # JSON
            return texts and is_number(size)
        case _:
            return False
