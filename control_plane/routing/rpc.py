"""The real router behind `port.Router`, over one gRPC channel that tries each replica.

Constructed by `__main__.py`. Every call has a deadline, and a router that does not answer is
`Unreachable`.
"""

import secrets
from collections.abc import Awaitable, Sequence
from typing import TypeVar

import grpc
import grpc.aio
from whimbrel.codec import (
    artifact_from_wire,
    artifact_to_wire,
    assignment_from_wire,
    assignment_to_wire,
)
from whimbrel.errors import Refused, Unreachable
from whimbrel.service.rpc import raise_from
from whimbrel.spec import Artifact, Assignment
from whimbrel.wire.v1 import placement_pb2, placement_pb2_grpc

from control_plane.routing import codec
from control_plane.routing.port import (
    AssignResult,
    Decision,
    LogPart,
    LogPlace,
    Registration,
    Requirement,
    Snapshot,
)

T = TypeVar("T")
CALL_SECONDS = 5.0
"""Of a call that etcd answers. Too short fails while etcd elects a leader, too long stalls
dispatch."""

ASK_SECONDS = 10.0
"""Of a question an agent answers from its store."""

COPY_SECONDS = 30.0
"""Of one question to copy. What has arrived by then is kept, so asking again goes on from there."""


class GrpcRouter:
    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel
        self._stub = placement_pb2_grpc.RouterStub(channel)

    async def close(self) -> None:
        await self._channel.close(None)

    async def place(self, requirements: Sequence[Requirement]) -> list[Decision]:
        reply = await call(
            self._stub.Place(
                placement_pb2.PlaceRequest(
                    requirements=[codec.requirement_to_wire(item) for item in requirements]
                ),
                timeout=CALL_SECONDS,
            )
        )
        return [codec.decision_from_wire(item) for item in reply.placements]

    async def assign(self, assignments: Sequence[Assignment]) -> list[AssignResult]:
        reply = await call(
            self._stub.Assign(
                placement_pb2.AssignRequest(
                    assignments=[assignment_to_wire(item) for item in assignments]
                ),
                timeout=CALL_SECONDS,
            )
        )
        return [AssignResult(item.written, item.stored_epoch) for item in reply.results]

    async def unassign(self, assignments: Sequence[Assignment]) -> list[AssignResult]:
        reply = await call(
            self._stub.Unassign(
                placement_pb2.UnassignRequest(
                    assignments=[assignment_to_wire(item) for item in assignments]
                ),
                timeout=CALL_SECONDS,
            )
        )
        return [AssignResult(item.written, item.stored_epoch) for item in reply.results]

    async def sync(self, registrations: Sequence[Registration]) -> None:
        await call(
            self._stub.SyncRegistrations(
                placement_pb2.SyncRegistrationsRequest(
                    registrations=[codec.registration_to_wire(item) for item in registrations]
                ),
                timeout=CALL_SECONDS,
            )
        )

    async def snapshot(self) -> Snapshot:
        reply = await call(
            self._stub.Snapshot(placement_pb2.SnapshotRequest(), timeout=CALL_SECONDS)
        )
        return Snapshot(
            clusters=tuple(codec.live_from_wire(item) for item in reply.clusters),
            ttl_ms=reply.ttl_ms,
        )

    async def assigned(self, cluster: str) -> list[Assignment]:
        answer = await self._ask(
            cluster, placement_pb2.Question(assignments=placement_pb2.AssignedList())
        )
        return [assignment_from_wire(item) for item in answer.assignments.assignments]

    async def probe(self, cluster: str, artifacts: Sequence[Artifact]) -> set[str]:
        wanted = [artifact_to_wire(item) for item in artifacts]
        answer = await self._ask(
            cluster, placement_pb2.Question(probe=placement_pb2.Probe(artifacts=wanted))
        )
        return set(answer.unreadable)

    async def copy(
        self, cluster: str, artifacts: Sequence[Artifact], *, folder: str
    ) -> dict[str, Artifact]:
        wanted = [artifact_to_wire(item) for item in artifacts]
        answer = await self._ask(
            cluster,
            placement_pb2.Question(copy=placement_pb2.Copy(artifacts=wanted, folder=folder)),
            seconds=COPY_SECONDS,
        )
        return {item.uri: artifact_from_wire(item.copy) for item in answer.copied}

    async def read_log(self, cluster: str, place: LogPlace, *, offset: int, limit: int) -> LogPart:
        answer = await self._ask(
            cluster,
            placement_pb2.Question(
                read_log=placement_pb2.ReadLog(
                    execution=place.execution,
                    node=place.node,
                    attempt=place.attempt,
                    stream=place.stream,
                    offset=offset,
                    limit=limit,
                    uri=place.uri,
                )
            ),
        )
        return LogPart(answer.data, answer.end, answer.attempt)

    async def _ask(
        self, cluster: str, question: placement_pb2.Question, *, seconds: float = ASK_SECONDS
    ) -> placement_pb2.Answer:
        question.id = secrets.token_hex(8)
        answer = await call(
            self._stub.Ask(
                placement_pb2.AskRequest(
                    cluster=cluster, question=question, timeout_seconds=seconds
                ),
                timeout=seconds + 1,
            )
        )
        if answer.error:
            raise Refused(f"{cluster}: {answer.error}")
        return answer


async def call(awaitable: Awaitable[T]) -> T:
    try:
        return await awaitable
    except grpc.aio.AioRpcError as error:
        if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
            raise Unreachable(
                f"the router does not answer: {error.details()}",
                remedy="is it running, and is the setting `router` right?",
            ) from error
        raise_from(error)
