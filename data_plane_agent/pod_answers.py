"""What a pod wrote as its answer, before anybody believes a field of it. Pure.

Called by `pod_orders.py`; what passes is turned into events by `process_answers.end_of`. A pod runs
the user's code, so anything may stand there.
"""

import json
from typing import Any, cast

from whimbrel.runtime_frames import Message


def parsed(text: str | bytes) -> Message | None:
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return cast("Message", value) if isinstance(value, dict) else None


def complete(message: Message | None) -> bool:
    """Whether all fields are there, of the kinds that `end_of` takes."""
    match message:
        case {
            "t": "done",
            "d": str(),
            "s": int(),
            "e": int(),
            "value": str(),
            "digest": str(),
            "artifacts": list(),
        }:
            written = cast("list[Any]", message["artifacts"])
            return "offloaded" in message and all(map(is_artifact, written)) and _may(message)
        case {
            "t": "broke",
            "s": int(),
            "e": int(),
            "owner": "user" | "system" | "config",
            "kind": str(),
            "message": str(),
            "tb": str(),
            "unreadable": list(),
        }:
            unreadable = cast("list[Any]", message["unreadable"])
            return all(isinstance(uri, str) for uri in unreadable) and _may(message)
        case _:
            return False


def _may(message: Message) -> bool:
    optional = [message.get(name) for name in ("offloaded", "stdout", "stderr")]
    return all(fields is None or is_artifact(fields) for fields in optional)


def is_artifact(fields: Any) -> bool:
    match fields:
        case {"uri": str(), "sha256": str(), "bytes": int(), "region": str(), "kind": str()}:
            return isinstance(fields.get("allowed_regions", []), list)
        case _:
            return False
