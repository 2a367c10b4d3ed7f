"""One attempt of one task: JSON inputs to the user's function to a JSON outputs document, or whose fault it was.

Called by `runtime_worker.py` with what the agent sent; the answer is what the agent's events are made from.
"""

import importlib
from collections.abc import Callable, Iterator
from typing import Any

from whimbrel.runtime_failures import describe, unreadable_uris
from whimbrel.runtime_frames import Message
from whimbrel.runtime_store import AttemptStore
from whimbrel.spec import INLINE_LIMIT, Artifact, by_content, canonical, sha256

SaveCheckpoint = Callable[[list[str | int], Artifact], None]


def run_attempt(
    frame: Message, store: AttemptStore, save_checkpoint: SaveCheckpoint, *, seat_bundle: str
) -> Message:
    try:
        module, _, name = frame["entry"].partition(":")
        value = getattr(importlib.import_module(module), name)(**frame["in"])
        document = {"o0": value}
        return _done(document, store)
    except (
        BaseException
    ) as error:  # SystemExit and KeyboardInterrupt of user code end a task, not the worker
        failure = describe(error, inside=seat_bundle)
        return {
            "t": "broke",
            "owner": failure.owner,
            "kind": failure.kind,
            "message": failure.message,
            "tb": failure.traceback,
            "unreadable": unreadable_uris(error),
        }


def _done(document: Message, store: AttemptStore) -> Message:
    text = canonical(document)
    digest = sha256(canonical(by_content(document)))
    offloaded = None
    if len(text.encode()) > INLINE_LIMIT:
        offloaded = plain(store.put_bytes(text.encode(), name="outputs.json", kind="value"))
        text = ""
    return {
        "t": "done",
        "value": text,
        "digest": digest,
        "artifacts": list(_artifacts(document)),
        "offloaded": offloaded,
    }


def _artifacts(value: Any) -> Iterator[Message]:
    match value:
        case {"$artifact": dict(fields)} if len(value) == 1:  # pyright: ignore[reportUnknownArgumentType] JSON
            yield fields
        case dict():
            for item in value.values():  # pyright: ignore[reportUnknownVariableType] JSON
                yield from _artifacts(item)
        case list():
            for item in value:  # pyright: ignore[reportUnknownVariableType] JSON
                yield from _artifacts(item)
        case _:
            return


def plain(artifact: Artifact) -> Message:
    return {name: getattr(artifact, name) for name in Artifact.__dataclass_fields__}
