"""gRPC `Clusters`: registrations and scheduling. Turns messages into values and back."""

from typing import Any

from whimbrel.wire.v1 import cluster_pb2, cluster_pb2_grpc

from control_plane.clusters.service import Clusters, Known
from control_plane.movement.codec import drain_to_wire
from control_plane.movement.service import Moves
from control_plane.routing.codec import live_to_wire, registration_from_wire, registration_to_wire


def known_to_wire(known: Known) -> cluster_pb2.Cluster:
    return cluster_pb2.Cluster(
        registration=registration_to_wire(known.registration),
        live=live_to_wire(known.live, known.registration) if known.live else None,
        cluster_epoch=known.cluster_epoch,
        owned_executions=known.owned_executions,
        registered_ns=known.registered_ns,
    )


class ClustersServicer(cluster_pb2_grpc.ClustersServicer):
    def __init__(self, clusters: Clusters, moves: Moves) -> None:
        self._clusters = clusters
        self._moves = moves

    async def Register(
        self, request: cluster_pb2.RegisterClusterRequest, context: Any
    ) -> cluster_pb2.Cluster:
        wanted = registration_from_wire(request.registration)
        return known_to_wire(await self._clusters.register(wanted))

    async def Get(
        self, request: cluster_pb2.GetClusterRequest, context: Any
    ) -> cluster_pb2.Cluster:
        return known_to_wire(await self._clusters.get(request.name))

    async def List(
        self, request: cluster_pb2.ListClustersRequest, context: Any
    ) -> cluster_pb2.ListClustersReply:
        found = await self._clusters.list()
        return cluster_pb2.ListClustersReply(clusters=[known_to_wire(item) for item in found])

    async def SetScheduling(
        self, request: cluster_pb2.SetSchedulingRequest, context: Any
    ) -> cluster_pb2.Cluster:
        return known_to_wire(await self._clusters.set_scheduling(request.name, request.scheduling))

    async def Drain(
        self, request: cluster_pb2.DrainRequest, context: Any
    ) -> cluster_pb2.DrainReply:
        views = await self._moves.drain(
            cluster=request.cluster, region=request.region, dry_run=request.dry_run
        )
        return cluster_pb2.DrainReply(drains=[drain_to_wire(view) for view in views])

    async def GetDrain(
        self, request: cluster_pb2.GetDrainRequest, context: Any
    ) -> cluster_pb2.DrainReply:
        view = await self._moves.drained(request.cluster)
        return cluster_pb2.DrainReply(drains=[drain_to_wire(view)] if view else [])
