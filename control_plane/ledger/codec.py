"""Ledger messages between the wire and `events.py`; looks at every event once, so it is kept
plain.
"""

from typing import Any

from whimbrel.codec import (
    artifact_from_wire,
    artifact_to_wire,
    failure_from_wire,
    want_to_wire,
)
from whimbrel.errors import InvalidInput
from whimbrel.spec import Artifact, Want
from whimbrel.wire.v1 import ledger_pb2, spec_pb2

from control_plane.ledger.claims import Claimed
from control_plane.ledger.events import (
    Batch,
    Body,
    Committed,
    Event,
    Failed,
    Output,
    Released,
    Result,
    Saved,
    Status,
    Succeeded,
    Unreachable,
)

RESULTS = {
    Result.COMMITTED: ledger_pb2.COMMITTED,
    Result.ALREADY_COMMITTED: ledger_pb2.ALREADY_COMMITTED,
    Result.FENCED: ledger_pb2.FENCED,
    Result.CONFLICT: ledger_pb2.CONFLICT,
    Result.INCOMPLETE: ledger_pb2.INCOMPLETE,
}
PAGE = 500
"""Outputs of one ClaimReply: with 64 KiB values inline a page could pass gRPC's 4 MiB, see
PAGE_BYTES."""

PAGE_BYTES = 1024 * 1024


def batch_from_wire(message: ledger_pb2.CommitRequest) -> Batch:
    return Batch(
        cluster=message.cluster,
        cluster_epoch=message.cluster_epoch,
        first=message.first,
        events=tuple(event_from_wire(event) for event in message.events),
    )


def event_from_wire(message: ledger_pb2.Event) -> Event:
    return Event(message.execution, message.epoch, body_from_wire(message))


def body_from_wire(message: ledger_pb2.Event) -> Body:
    match message.WhichOneof("body"):
        case "output":
            return output_from_wire(message.output)
        case "status":
            return status_from_wire(message.status)
        case "checkpoint":
            saved = message.checkpoint
            return Saved(saved.node, saved.attempt, artifact_from_wire(saved.artifact), saved.at_ns)
        case "succeeded":
            return Succeeded(message.succeeded.outputs_json)
        case "failed":
            return Failed(failure_from_wire(message.failed.error))
        case "released":
            return Released(message.released.reason, message.released.message)
        case "unreachable":
            return Unreachable(message.unreachable.node, tuple(message.unreachable.uris))
        case _:
            raise InvalidInput(
                f"an event of {message.execution} has a body this ledger does not know",
                remedy="update the control plane before the agents",
            )


def optional(message: Any, field: str) -> Artifact | None:
    return artifact_from_wire(getattr(message, field)) if message.HasField(field) else None


def output_from_wire(message: ledger_pb2.NodeOutput) -> Output:
    return Output(
        node=message.node,
        attempt=message.attempt,
        value=message.value_json,
        input_digest=message.input_digest,
        output_digest=message.output_digest,
        offloaded=optional(message, "offloaded"),
        artifacts=tuple(artifact_from_wire(item) for item in message.artifacts),
        started_ns=message.started_ns,
        ended_ns=message.ended_ns,
        stdout=optional(message, "stdout"),
        stderr=optional(message, "stderr"),
        host=message.host,
    )


def maybe(value: Artifact | None) -> spec_pb2.Artifact | None:
    return artifact_to_wire(value) if value else None


def output_to_wire(output: Output) -> ledger_pb2.NodeOutput:
    return ledger_pb2.NodeOutput(
        node=output.node,
        attempt=output.attempt,
        value_json=output.value,
        input_digest=output.input_digest,
        output_digest=output.output_digest,
        offloaded=maybe(output.offloaded),
        artifacts=[artifact_to_wire(item) for item in output.artifacts],
        started_ns=output.started_ns,
        ended_ns=output.ended_ns,
        stdout=maybe(output.stdout),
        stderr=maybe(output.stderr),
        epoch=output.epoch,
        host=output.host,
    )


def status_from_wire(message: ledger_pb2.NodeStatus) -> Status:
    return Status(
        node=message.node,
        attempt=message.attempt,
        phase=message.phase,
        started_ns=message.started_ns,
        ended_ns=message.ended_ns,
        error=failure_from_wire(message.error) if message.HasField("error") else None,
        will_retry=message.will_retry,
        stdout=optional(message, "stdout"),
        stderr=optional(message, "stderr"),
        host=message.host,
        avoided=tuple(message.avoided),
    )


def committed_to_wire(committed: Committed) -> ledger_pb2.CommitReply:
    return ledger_pb2.CommitReply(
        cursor=committed.cursor,
        gap_expected=committed.gap_expected,
        exceptions=[
            ledger_pb2.CommitException(
                index=verdict.index,
                result=RESULTS[verdict.result],
                current_epoch=verdict.current_epoch,
                kept=output_to_wire(verdict.kept) if verdict.kept else None,
            )
            for verdict in committed.verdicts
        ],
    )


def claim_pages(claimed: Claimed) -> list[ledger_pb2.ClaimReply]:
    """One or several replies; all but the last say that more follow."""
    answer = claimed.answer
    if not answer.claimed:
        return [
            ledger_pb2.ClaimReply(
                execution=answer.execution,
                epoch=answer.epoch,
                current_epoch=answer.row.epoch if answer.row else 0,
                terminal=answer.row.terminal if answer.row else False,
            )
        ]
    pages = [
        ledger_pb2.ClaimReply(
            execution=answer.execution,
            epoch=answer.epoch,
            claimed=True,
            current_epoch=answer.epoch,
            spec_digest=claimed.spec_digest,
            inputs_json=claimed.inputs,
            traceparent=claimed.traceparent,
            mode=claimed.mode,
            regions=claimed.regions,
            offload=claimed.offload,
            want=want_to_wire(answer.row.want if answer.row else Want.RUN),
            checkpoints=[
                ledger_pb2.Checkpoint(
                    node=saved.node,
                    attempt=saved.attempt,
                    artifact=artifact_to_wire(saved.artifact),
                    at_ns=saved.at_ns,
                )
                for saved in claimed.checkpoints
            ],
            tries=[
                ledger_pb2.NodeTries(
                    node=tries.node,
                    attempts=tries.attempts,
                    user_failures=tries.user_failures,
                    system_failures=tries.system_failures,
                    avoid=tries.avoid,
                )
                for tries in claimed.tries
            ],
        )
    ]
    size = 0
    for output in claimed.outputs:
        if len(pages[-1].outputs) >= PAGE or size > PAGE_BYTES:
            pages[-1].more = True
            pages.append(
                ledger_pb2.ClaimReply(execution=answer.execution, epoch=answer.epoch, claimed=True)
            )
            size = 0
        pages[-1].outputs.append(output_to_wire(output))
        size += len(output.value)
    for at in range(0, len(claimed.replicas), PAGE):
        pages[-1].more = True
        page = ledger_pb2.ClaimReply(execution=answer.execution, epoch=answer.epoch, claimed=True)
        for copy in claimed.replicas[at : at + PAGE]:
            page.replicas.add(uri=copy.uri, copy=artifact_to_wire(copy.artifact))
        pages.append(page)
    return pages
