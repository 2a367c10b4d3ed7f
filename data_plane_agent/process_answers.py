"""What a worker said about an attempt, as the launcher's events; one function, both for messages
and for the spool.

Called by `processes.py`; the messages are made in `whimbrel.runtime_worker`.
"""

from typing import Any

from whimbrel.runtime_frames import Message
from whimbrel.runtime_store import artifact_of
from whimbrel.spec import Failure, Outputs, Owner

from data_plane_agent.launcher import AttemptKey, Broke, Finished, Logs


def key_of(parts: list[Any]) -> AttemptKey:
    execution, node, attempt, epoch = parts
    return AttemptKey(execution, node, attempt, epoch)


def parts_of(key: AttemptKey) -> list[str | int]:
    return [key.execution, key.node, key.attempt, key.epoch]


def prefix_of(key: AttemptKey) -> str:
    return f"{key.execution}/{key.node}/{key.attempt}/{key.epoch}"


def end_of(message: Message) -> Finished | Broke:
    key = key_of(message["k"])
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
