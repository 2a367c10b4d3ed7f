"""One attempt of one task: JSON inputs to the user's function to a JSON outputs document, or whose
fault it was.

Called by `runtime_worker.py` with what the agent sent; the answer is what the agent's events are
made from.
"""

import importlib
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from typing import Any, cast

from whimbrel.runtime_failures import describe, unreadable_uris
from whimbrel.runtime_frames import Message
from whimbrel.runtime_store import AttemptStore
from whimbrel.spec import (
    ARTIFACT_KEY,
    INLINE_LIMIT,
    Artifact,
    Failure,
    by_content,
    canonical,
    sha256,
)

SaveCheckpoint = Callable[[list[str | int], Artifact], None]


def run_attempt(
    frame: Message, store: AttemptStore, save_checkpoint: SaveCheckpoint, *, seat_bundle: str
) -> Message:
    _set_environment(frame, store)
    try:
        function = _load(frame["entry"])
    except BaseException as error:  # user code runs at import, and may raise anything
        failure = describe(error, inside=seat_bundle)
        message = f"{frame['entry']} can't be loaded: {failure.message}"
        return _broke(replace(failure, kind="import", message=message), error)
    try:
        return _done({"o0": function(**frame["in"])}, store)
    except BaseException as error:  # SystemExit and KeyboardInterrupt end a task, not its worker
        return _broke(describe(error, inside=seat_bundle), error)


@cache
def _load(entry_point: str) -> Callable[..., Any]:
    module, _, name = entry_point.partition(":")
    return getattr(importlib.import_module(module), name)


def _broke(failure: Failure, error: BaseException) -> Message:
    return {
        "t": "broke",
        "owner": failure.owner,
        "kind": failure.kind,
        "message": failure.message,
        "tb": failure.traceback,
        "unreadable": unreadable_uris(error),
    }


def _set_environment(frame: Message, store: AttemptStore) -> None:
    execution, node, attempt, epoch = frame["meta"]["k"]
    os.environ["IDEMPOTENCY_KEY"] = f"{execution}/{node}"
    os.environ["EPOCH"] = str(epoch)
    os.environ["WHIMBREL_EXECUTION"] = execution
    os.environ["WHIMBREL_NODE"] = node
    os.environ["WHIMBREL_ATTEMPT"] = str(attempt)
    os.environ["WHIMBREL_REGION"] = store.region
    os.environ["TRACEPARENT"] = frame["trace"]


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


def _artifacts(value: object) -> Iterator[Message]:
    match value:
        case {"$artifact": _}:
            yield cast(dict[str, Message], value)[ARTIFACT_KEY]
        case dict():
            for item in cast(dict[str, object], value).values():
                yield from _artifacts(item)
        case list():
            for item in cast(list[object], value):
                yield from _artifacts(item)
        case _:
            return


def plain(artifact: Artifact) -> Message:
    return {name: getattr(artifact, name) for name in Artifact.__dataclass_fields__}
