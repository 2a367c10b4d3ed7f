"""The control plane's door: place, assign, who is alive, and questions to an agent.

Called by the control plane; reads the inventory, decides with `placement.py`, writes through
`assignments.py`. A question whose agent is connected elsewhere goes to that replica, once.
"""

import secrets
import time
from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio
from whimbrel import codec as shared
from whimbrel.errors import InvalidInput, Unreachable
from whimbrel.service.rpc import channel, error_from
from whimbrel.wire.v1 import placement_pb2, placement_pb2_grpc

from router import codec
from router.assignments import Assignments
from router.inventory import Inventory
from router.lookout import Lookout
from router.metrics import Metrics
from router.placement import place_all
from router.reservations import Reservations
from router.sessions import Sessions
from router.streams import Stream

FORWARDED = "whimbrel-forwarded"
ASK_SECONDS = 5.0
"""For a question that names no limit. Too short misses a busy agent, too long keeps a person."""


class RouterService(placement_pb2_grpc.RouterServicer):
    """Every answer here comes from a view of etcd that is current, or is Unreachable."""

    def __init__(
        self,
        inventory: Inventory,
        assignments: Assignments,
        sessions: Sessions,
        lookout: Lookout,
        *,
        ttl: float,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], int] = time.time_ns,
        metrics: Metrics | None = None,
    ) -> None:
        self._inventory = inventory
        self._assignments = assignments
        self._sessions = sessions
        self._lookout = lookout
        self._ttl = ttl
        self._wall = wall
        self._metrics = metrics or Metrics()
        self._reservations = Reservations(clock=clock)
        inventory.listen(self._reservations.on_news)
        self._replicas: dict[str, grpc.aio.Channel] = {}

    def register(self, server: grpc.aio.Server) -> None:
        placement_pb2_grpc.add_RouterServicer_to_server(self, server)

    async def close(self) -> None:
        for replica in self._replicas.values():
            await replica.close(None)

    async def Place(  # type: ignore[override]  # the generated base is not async
        self, request: placement_pb2.PlaceRequest, context: Any
    ) -> placement_pb2.PlaceReply:
        started = time.perf_counter()
        self._inventory.require()
        requirements = [codec.requirement_from_wire(one) for one in request.requirements]
        now = self._wall()
        clusters = self._inventory.judged(self._lookout.suspected, now_ns=now)
        # No await from here to the reservation: two calls must not see the same room.
        placements = place_all(requirements, self._reservations.counted(clusters))
        self._reservations.reserve(placements)
        reply = placement_pb2.PlaceReply(
            placements=[codec.placement_to_wire(one, decided_ns=now) for one in placements]
        )
        self._metrics.placed(placements, seconds=time.perf_counter() - started)
        return reply

    async def Assign(  # type: ignore[override]  # the generated base is not async
        self, request: placement_pb2.AssignRequest, context: Any
    ) -> placement_pb2.AssignReply:
        wishes = [shared.assignment_from_wire(one) for one in request.assignments]
        for wish in wishes:
            if not wish.execution or not wish.cluster or wish.epoch < 1:
                raise InvalidInput(f"an assignment needs execution, epoch and cluster: {wish}")
        return codec.written_to_wire(await self._assignments.assign(wishes))

    async def Unassign(  # type: ignore[override]  # the generated base is not async
        self, request: placement_pb2.UnassignRequest, context: Any
    ) -> placement_pb2.AssignReply:
        wishes = [(one.execution, one.epoch) for one in request.assignments]
        return codec.written_to_wire(await self._assignments.unassign(wishes))

    async def SyncRegistrations(  # type: ignore[override]  # the generated base is not async
        self, request: placement_pb2.SyncRegistrationsRequest, context: Any
    ) -> placement_pb2.SyncRegistrationsReply:
        registrations = [codec.registration_from_wire(one) for one in request.registrations]
        await self._assignments.sync(registrations)
        return placement_pb2.SyncRegistrationsReply()

    async def Snapshot(  # type: ignore[override]  # the generated base is not async
        self, request: placement_pb2.SnapshotRequest, context: Any
    ) -> placement_pb2.SnapshotReply:
        self._inventory.require()
        clusters = self._inventory.judged(self._lookout.suspected, now_ns=self._wall())
        return placement_pb2.SnapshotReply(
            clusters=[
                codec.live_cluster_to_wire(cluster, self._lookout.absence(name))
                for name, cluster in sorted(clusters.items())
            ],
            ttl_ms=round(self._ttl * 1000),
        )

    async def Ask(  # type: ignore[override]  # the generated base is not async
        self, request: placement_pb2.AskRequest, context: Any
    ) -> placement_pb2.Answer:
        question = request.question
        timeout = request.timeout_seconds or ASK_SECONDS
        if question.WhichOneof("body") == "assignments":
            self._inventory.require()
            assigned = self._inventory.assigned_to(request.cluster)
            wishes = [shared.assignment_to_wire(one) for one in assigned]
            listed = placement_pb2.AssignedList(assignments=wishes)
            return placement_pb2.Answer(id=question.id, assignments=listed)
        # An id of our own: two callers may have chosen the same one.
        asked = placement_pb2.Question()
        asked.CopyFrom(question)
        asked.id = secrets.token_hex(8)
        match self._sessions.locate(request.cluster):
            case Stream() as stream:
                answer = await stream.ask(asked.id, asked, timeout=timeout)
            case str(gateway):
                answer = await self._forward(request, gateway, context, timeout)
        reply = placement_pb2.Answer()
        reply.CopyFrom(answer)
        reply.id = question.id
        return reply

    async def _forward(
        self, request: placement_pb2.AskRequest, gateway: str, context: Any, timeout: float
    ) -> placement_pb2.Answer:
        keys = [key for key, _ in context.invocation_metadata() or ()]
        if FORWARDED in keys:
            raise Unreachable(f"the agent of {request.cluster} is moving between replicas")
        if gateway not in self._replicas:
            self._replicas[gateway] = channel(gateway)
        stub: Any = placement_pb2_grpc.RouterStub(self._replicas[gateway])
        try:
            return await stub.Ask(request, timeout=timeout + 1, metadata=((FORWARDED, "1"),))
        except grpc.aio.AioRpcError as error:
            raise error_from(error) from error
