"""The agent's border to the wire: messages.py <-> protobuf, both ways.

Called by `rpc.py` for what is said to the router, by the engine (through `encode`, `decode`) for
events in the outbox, whose stored form is their wire form, so that a batch is put together from
bytes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from whimbrel import codec
from whimbrel.spec import Artifact, Outputs, Want, WorkflowSpec
from whimbrel.wire.v1 import agent_pb2, ledger_pb2, placement_pb2, spec_pb2

from data_plane_agent import messages as m
from data_plane_agent.launcher import Logs


def encode(event: m.Event, *, execution: str, epoch: int) -> bytes:
    """The event as it lies in the outbox and travels in a batch."""
    message = ledger_pb2.Event(execution=execution, epoch=epoch)
    match event:
        case m.AttemptRuns(node, attempt, started_ns, host, avoided):
            status = message.status
            status.node, status.attempt, status.phase = node, attempt, "RUNNING"
            status.started_ns, status.host = started_ns, host
            status.avoided.extend(avoided)
        case m.AttemptFailed():
            status = message.status
            status.node, status.attempt, status.phase = event.node, event.attempt, "FAILED"
            status.started_ns, status.ended_ns = event.started_ns, event.ended_ns
            status.error.CopyFrom(codec.failure_to_wire(event.failure))
            status.will_retry, status.host = event.will_retry, event.host
            status.avoided.extend(event.avoided)
            _put_logs(status, event.logs)
        case m.NodeOutput():
            _put_output(message.output, event)
        case m.Checkpointed(node, attempt, artifact, at_ns):
            saved = message.checkpoint
            saved.node, saved.attempt, saved.at_ns = node, attempt, at_ns
            saved.artifact.CopyFrom(codec.artifact_to_wire(artifact))
        case m.Succeeded(outputs, artifacts):
            message.succeeded.outputs_json = outputs
            message.succeeded.artifacts.extend(map(codec.artifact_to_wire, artifacts))
            message.succeeded.SetInParent()
        case m.Failed(failure):
            message.failed.error.CopyFrom(codec.failure_to_wire(failure))
        case m.Released(reason, text):
            message.released.reason, message.released.message = reason, text
            message.released.SetInParent()
        case m.Unreachable(node, uris):
            message.unreachable.node = node
            message.unreachable.uris.extend(uris)
            message.unreachable.SetInParent()
    return message.SerializeToString()


def decode(data: bytes) -> m.Event | None:
    """None for a kind this version does not know."""
    message = ledger_pb2.Event.FromString(data)
    match message.WhichOneof("body"):
        case "status" if message.status.phase == "RUNNING":
            status = message.status
            return m.AttemptRuns(
                status.node,
                status.attempt,
                status.started_ns,
                status.host,
                tuple(status.avoided),
            )
        case "status":
            status = message.status
            return m.AttemptFailed(
                status.node,
                status.attempt,
                codec.failure_from_wire(status.error),
                status.will_retry,
                status.started_ns,
                status.ended_ns,
                _logs(status),
                status.host,
                tuple(status.avoided),
            )
        case "output":
            return output_from_wire(message.output)
        case "checkpoint":
            return _checkpoint(message.checkpoint)
        case "succeeded":
            artifacts = tuple(map(codec.artifact_from_wire, message.succeeded.artifacts))
            return m.Succeeded(message.succeeded.outputs_json, artifacts)
        case "failed":
            return m.Failed(codec.failure_from_wire(message.failed.error))
        case "released":
            return m.Released(message.released.reason, message.released.message)
        case "unreachable":
            return m.Unreachable(message.unreachable.node, tuple(message.unreachable.uris))
        case _:
            return None


def address(data: bytes) -> tuple[str, int]:
    """Execution and epoch of an encoded event."""
    message = ledger_pb2.Event.FromString(data)
    return message.execution, message.epoch


def _put_output(message: ledger_pb2.NodeOutput, event: m.NodeOutput) -> None:
    message.node, message.attempt = event.node, event.attempt
    outputs = event.outputs
    message.value_json, message.output_digest = outputs.value, outputs.digest
    message.input_digest = event.input_digest
    message.started_ns, message.ended_ns = event.started_ns, event.ended_ns
    message.host = event.host
    if outputs.artifacts:
        message.artifacts.extend(map(codec.artifact_to_wire, outputs.artifacts))
    if outputs.offloaded is not None:
        message.offloaded.CopyFrom(codec.artifact_to_wire(outputs.offloaded))
    _put_logs(message, event.logs)


def _put_logs(message: ledger_pb2.NodeOutput | ledger_pb2.NodeStatus, logs: Logs) -> None:
    if logs.stdout is not None:
        message.stdout.CopyFrom(codec.artifact_to_wire(logs.stdout))
    if logs.stderr is not None:
        message.stderr.CopyFrom(codec.artifact_to_wire(logs.stderr))


def _logs(message: ledger_pb2.NodeOutput | ledger_pb2.NodeStatus) -> Logs:
    return Logs(
        stdout=codec.artifact_from_wire(message.stdout) if message.HasField("stdout") else None,
        stderr=codec.artifact_from_wire(message.stderr) if message.HasField("stderr") else None,
    )


def output_from_wire(message: ledger_pb2.NodeOutput) -> m.NodeOutput:
    offloaded: Artifact | None = None
    if message.HasField("offloaded"):
        offloaded = codec.artifact_from_wire(message.offloaded)
    return m.NodeOutput(
        node=message.node,
        attempt=message.attempt,
        outputs=Outputs(
            message.value_json,
            message.output_digest,
            tuple(map(codec.artifact_from_wire, message.artifacts)),
            offloaded,
        ),
        input_digest=message.input_digest,
        started_ns=message.started_ns,
        ended_ns=message.ended_ns,
        logs=_logs(message),
        epoch=message.epoch,
        host=message.host,
    )


def _checkpoint(message: ledger_pb2.Checkpoint) -> m.Checkpointed:
    artifact = codec.artifact_from_wire(message.artifact)
    return m.Checkpointed(message.node, message.attempt, artifact, message.at_ns)


def claims(pages: Sequence[ledger_pb2.ClaimReply]) -> list[m.Claimed | m.NotClaimed]:
    """Pages, in the order they came, put together to one answer an execution."""
    answers: list[m.Claimed | m.NotClaimed] = []
    of: dict[tuple[str, int], list[ledger_pb2.ClaimReply]] = {}
    for page in pages:
        of.setdefault((page.execution, page.epoch), []).append(page)
    for (execution, epoch), group in of.items():
        head = group[0]
        if not head.claimed:
            answers.append(m.NotClaimed(execution, epoch, head.current_epoch, head.terminal))
            continue
        tries = (one for page in group for one in page.tries)
        copies = {
            one.uri: codec.artifact_from_wire(one.copy) for page in group for one in page.replicas
        }
        answers.append(
            m.Claimed(
                execution=execution,
                epoch=epoch,
                spec_digest=head.spec_digest,
                inputs=head.inputs_json,
                traceparent=head.traceparent,
                mode=head.mode or "idempotent",
                outputs=tuple(
                    _at_copy(output_from_wire(one), copies)
                    for page in group
                    for one in page.outputs
                ),
                checkpoints=tuple(
                    _saved_at_copy(_checkpoint(one), copies)
                    for page in group
                    for one in page.checkpoints
                ),
                tries=tuple(
                    m.NodeTries(
                        one.node,
                        one.attempts,
                        one.user_failures,
                        one.system_failures,
                        tuple(one.avoid),
                    )
                    for one in tries
                ),
                replicas=copies,
                regions=tuple(head.regions),
                offload=head.offload,
                want=Want.QUIESCE if head.want == placement_pb2.QUIESCE else Want.RUN,
            )
        )
    return answers


def _at_copy(output: m.NodeOutput, copies: Mapping[str, Artifact]) -> m.NodeOutput:
    """Its document is read from the copy; what the document names is looked up when it is read."""
    offloaded = output.outputs.offloaded
    if offloaded is None or offloaded.uri not in copies:
        return output
    return replace(output, outputs=replace(output.outputs, offloaded=copies[offloaded.uri]))


def _saved_at_copy(saved: m.Checkpointed, copies: Mapping[str, Artifact]) -> m.Checkpointed:
    return replace(saved, artifact=copies.get(saved.artifact.uri, saved.artifact))


def receipt(reply: ledger_pb2.CommitReply) -> m.Receipt:
    known = set(m.Verdict)
    objections: list[m.Objection] = []
    for one in reply.exceptions:
        name = ledger_pb2.CommitResult.Name(one.result)
        if name in known:
            kept = output_from_wire(one.kept) if one.HasField("kept") else None
            objections.append(m.Objection(one.index, m.Verdict(name), one.current_epoch, kept))
    return m.Receipt(reply.cursor, reply.gap_expected, tuple(objections))


def commit_request(
    events: Sequence[bytes], *, cluster: str, cluster_epoch: int, first: int
) -> bytes:
    """A CommitRequest's bytes from the bytes of its events (field 4), which are not parsed
    again."""
    head = ledger_pb2.CommitRequest(cluster=cluster, cluster_epoch=cluster_epoch, first=first)
    parts = [head.SerializeToString()]
    for event in events:
        parts += (b"\x22", _varint(len(event)), event)
    return b"".join(parts)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def workflow(data: bytes) -> WorkflowSpec:
    return codec.workflow_from_wire(spec_pb2.WorkflowSpec.FromString(data))


def _load(load: m.Load) -> placement_pb2.Capacity:
    offer = load.capacity.offer
    return placement_pb2.Capacity(
        allocatable=codec.resources_to_wire(load.capacity.allocatable),
        free=codec.resources_to_wire(load.capacity.free),
        max_executions=load.max_executions,
        held_executions=load.held_executions,
        running_tasks=load.capacity.running,
        queued_tasks=load.capacity.queued,
        compute_ill=bool(load.capacity.ill),
        compute_why=load.capacity.ill[:500],
        offer=placement_pb2.Offer(
            images=offer.images,
            refused_images=offer.refused_images,
            secrets=offer.secrets,
        )
        if offer is not None
        else None,
    )


def to_router(said: m.FromAgent) -> agent_pb2.AgentMessage:
    match said:
        case m.Hello():
            hello = agent_pb2.Hello(
                cluster=said.cluster,
                incarnation=said.incarnation,
                version=said.version,
                resume_session=said.resume_session,
                last_ack_n=said.last_ack_n,
                region=said.region,
                capacity=_load(said.load),
            )
            return agent_pb2.AgentMessage(hello=hello)
        case m.Answer():
            answer = placement_pb2.Answer(
                id=said.id,
                error=said.error,
                unreadable=said.unreadable,
                data=said.data,
                end=said.end,
                attempt=said.attempt,
                copied=[
                    placement_pb2.Replica(uri=uri, copy=codec.artifact_to_wire(copy))
                    for uri, copy in said.copied
                ],
            )
            return agent_pb2.AgentMessage(answer=answer)


def from_router(message: agent_pb2.RouterMessage) -> m.FromRouter | None:
    """None for a kind this version does not know."""
    match message.WhichOneof("body"):
        case "welcome":
            said = message.welcome
            return m.Welcome(
                said.session,
                said.cluster_epoch,
                said.ttl_ms / 1000,
                said.heartbeat_ms / 1000,
                said.resumed,
            )
        case "all":
            return m.All(tuple(map(codec.assignment_from_wire, message.all.assignments)))
        case "changed":
            return m.Changed(tuple(map(codec.assignment_from_wire, message.changed.assignments)))
        case "removed":
            return m.Removed(tuple(map(codec.assignment_from_wire, message.removed.assignments)))
        case "question":
            return _question(message.question)
        case "bye":
            return m.Bye(message.bye.reason)
        case _:
            return None


def _question(message: placement_pb2.Question) -> m.Question:
    match message.WhichOneof("body"):
        case "probe":
            artifacts = tuple(map(codec.artifact_from_wire, message.probe.artifacts))
            return m.Probe(message.id, artifacts)
        case "copy":
            artifacts = tuple(map(codec.artifact_from_wire, message.copy.artifacts))
            return m.Copy(message.id, artifacts, message.copy.folder)
        case "read_log":
            asked = message.read_log
            return m.ReadLog(
                message.id,
                asked.execution,
                asked.node,
                asked.attempt,
                asked.stream,
                asked.offset,
                asked.limit,
                asked.uri,
            )
        case _:
            return m.OtherQuestion(message.id)


def beat_to_wire(beat: m.Beat) -> agent_pb2.Heartbeat:
    return agent_pb2.Heartbeat(
        session=beat.session,
        cluster=beat.cluster,
        cluster_epoch=beat.cluster_epoch,
        n=beat.n,
        last_ack_n=beat.last_ack_n,
        t_send_ns=beat.sent_ns,
        compute_ok=beat.compute_ok,
        engine_progress=beat.engine_progress,
        work_pending=beat.work_pending,
        capacity=_load(beat.load),
        held_digest=beat.held_digest,
    )


def ack_from_wire(message: agent_pb2.HeartbeatAck) -> m.BeatAck:
    return m.BeatAck(message.n, message.t_send_ns, message.renewed, message.session_over)
