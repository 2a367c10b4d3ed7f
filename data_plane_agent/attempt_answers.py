"""What a worker said about an attempt, as the launcher's events; one function, both for messages
and for the spool.

Called by `processes/launcher.py`; the messages are made in `whimbrel.runtime_worker`.
"""

import logging
import time
from typing import Any, cast

from whimbrel.runtime_frames import Message
from whimbrel.runtime_store import artifact_of
from whimbrel.spec import Failure, Outputs, Owner

from data_plane_agent.launcher import AttemptKey, Broke, Finished, Logs
from data_plane_agent.pods.answers import clean, complete

log = logging.getLogger(__name__)


def key_of(parts: list[Any]) -> AttemptKey:
    execution, node, attempt, epoch = parts
    return AttemptKey(execution, node, attempt, epoch)


def parts_of(key: AttemptKey) -> list[str | int]:
    return [key.execution, key.node, key.attempt, key.epoch]


def prefix_of(key: AttemptKey) -> str:
    return f"{key.execution}/{key.node}/{key.attempt}/{key.epoch}"


def end_of(message: Message) -> Finished | Broke:
    """An answer that can't be told to the ledger is the task's fault: its code runs beside whoever
    wrote it, and the agent must outlive it."""
    key = key_of(message["k"])
    try:
        message = cast("Message", clean(message))
        believed = complete(message)
    except RecursionError:
        believed = False
    return _end_of(key, message) if believed else bad_answer(key, "it has not the form of one")


def bad_answer(key: AttemptKey, why: str) -> Broke:
    log.warning("the answer of %s is not taken: %s", prefix_of(key), why)
    said = f"what the task's process gave as its answer can't be used: {why}"
    now = time.time_ns()
    return Broke(key, Failure(Owner.USER, "bad_answer", said, key.node), now, now)


def _end_of(key: AttemptKey, message: Message) -> Finished | Broke:
    out, err = message.get("stdout"), message.get("stderr")
    logs = Logs(out and artifact_of(out), err and artifact_of(err))
    match message:
        case {
            "t": "done",
            "value": value,
            "digest": digest,
            "artifacts": artifacts,
            "offloaded": off,
        }:
            outputs = Outputs(
                value, digest, tuple(map(artifact_of, artifacts)), off and artifact_of(off)
            )
            return Finished(key, outputs, message["d"], message["s"], message["e"], logs)
        case _:
            failure = Failure(
                Owner(message["owner"]),
                message["kind"],
                message["message"],
                node=key.node,
                traceback=message["tb"],
            )
            gone = tuple(message["unreadable"])
            return Broke(key, failure, message["s"], message["e"], logs, gone)
