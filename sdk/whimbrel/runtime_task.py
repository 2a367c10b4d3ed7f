"""One attempt of one task: JSON inputs to the user's function to a JSON outputs document, or whose
fault it was.

Called by `runtime_worker.py` and `runtime_pod_child.py` with what the agent sent; the answer is
what the agent's events are made from.
"""

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from whimbrel.artifacts import Store
from whimbrel.checkpoint import Checkpoint, never
from whimbrel.context import Context, entered
from whimbrel.runtime_failures import describe, unreadable_uris
from whimbrel.runtime_frames import Message
from whimbrel.runtime_store import UnreadableInput, artifact_of, plain
from whimbrel.spec import INLINE_LIMIT, Artifact, Failure, by_content, canonical, sha256
from whimbrel.task import load_task, run_task

SaveCheckpoint = Callable[[list[str | int], Artifact], None]


class TaskStore(Store, Protocol):
    """What an attempt needs of `AttemptStore` or, in a pod, of `SignedStore`."""

    @property
    def region(self) -> str: ...

    @property
    def scratch(self) -> str: ...

    def put_bytes(self, data: bytes, *, name: str, kind: str = "file") -> Artifact: ...

    def put_checkpoint(self, data: bytes) -> Artifact: ...

    def get_bytes(self, artifact: Artifact) -> bytes: ...


def run_attempt(
    frame: Message,
    store: TaskStore,
    save_checkpoint: SaveCheckpoint,
    *,
    seat_bundle: str,
    moving: Callable[[], bool] = never,
) -> Message:
    """`moving` says whether the machine has to be left, see `Context.migration_requested`."""
    _set_environment(frame, store)
    try:
        task = load_task(frame["entry"])
    except BaseException as error:  # user code runs at import, and may raise anything
        failure = describe(error, inside=seat_bundle)
        message = f"{frame['entry']} can't be loaded: {failure.message}"
        failure = replace(failure, kind="import", message=message)
        return broken(failure, unreadable_uris(error))
    try:
        with entered(_context(frame, store, save_checkpoint, moving)):
            document, artifacts = run_task(task, frame["in"], store)
        return _done(document, artifacts, store)
    except BaseException as error:  # SystemExit and KeyboardInterrupt end a task, not its worker
        return broken(describe(error, inside=seat_bundle), unreadable_uris(error))


@dataclass(slots=True)
class _Checkpoints:
    """Objects of the region's store; the agent is told of each, so that the next try finds it."""

    key: list[str | int]
    newest: Artifact | None
    objects: TaskStore
    saved: SaveCheckpoint

    def load(self) -> bytes | None:
        """A checkpoint that can't be had costs the work since, not the run."""
        if self.newest is None:
            return None
        try:
            return self.objects.get_bytes(self.newest)
        except UnreadableInput as error:
            sys.stderr.write(f"whimbrel: no checkpoint, beginning anew: {error}\n")
            return None

    def store(self, data: bytes) -> None:
        self.newest = self.objects.put_checkpoint(data)
        self.saved(self.key, self.newest)


def _context(
    frame: Message, store: TaskStore, save_checkpoint: SaveCheckpoint, moving: Callable[[], bool]
) -> Context:
    key = frame["meta"]["k"]
    execution, node, attempt, epoch = key
    fields = frame["checkpoint"]
    newest = fields and artifact_of(fields)
    return Context(
        execution_id=execution,
        node_id=node,
        attempt=attempt,
        epoch=epoch,
        region=store.region,
        working_directory=store.scratch,
        checkpoint=Checkpoint(_Checkpoints(key, newest, store, save_checkpoint), moving),
    )


def broken(failure: Failure, unreadable: Sequence[str] = ()) -> Message:
    return {
        "t": "broke",
        "owner": failure.owner,
        "kind": failure.kind,
        "message": failure.message,
        "tb": failure.traceback,
        "unreadable": list(unreadable),
    }


def _set_environment(frame: Message, store: TaskStore) -> None:
    execution, node, attempt, epoch = frame["meta"]["k"]
    os.environ["IDEMPOTENCY_KEY"] = f"{execution}/{node}"
    os.environ["EPOCH"] = str(epoch)
    os.environ["WHIMBREL_EXECUTION"] = execution
    os.environ["WHIMBREL_NODE"] = node
    os.environ["WHIMBREL_ATTEMPT"] = str(attempt)
    os.environ["WHIMBREL_REGION"] = store.region
    os.environ["TRACEPARENT"] = frame["trace"]


def _done(document: Message, artifacts: list[Artifact], store: TaskStore) -> Message:
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
        "artifacts": [plain(artifact) for artifact in artifacts],
        "offloaded": offloaded,
    }
