"""gRPC `Ledger`: the router's relayed calls of agents. Turns messages into values and back."""

from collections.abc import AsyncIterator
from typing import Any

from whimbrel.wire.v1 import ledger_pb2, ledger_pb2_grpc, spec_pb2

from control_plane.ledger import codec
from control_plane.ledger.service import Ledger


class LedgerServicer(ledger_pb2_grpc.LedgerServicer):
    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def OpenSession(
        self, request: ledger_pb2.OpenSessionRequest, context: Any
    ) -> ledger_pb2.OpenSessionReply:
        epoch, scheduling = await self._ledger.open_session(
            request.cluster, incarnation=request.incarnation, region=request.region
        )
        return ledger_pb2.OpenSessionReply(cluster_epoch=epoch, scheduling=scheduling)

    async def ReportLost(
        self, request: ledger_pb2.ReportLostRequest, context: Any
    ) -> ledger_pb2.ReportLostReply:
        await self._ledger.lost(
            request.cluster, request.cluster_epoch, since_ns=request.lost_since_ns
        )
        return ledger_pb2.ReportLostReply()

    async def Claim(
        self, request: ledger_pb2.ClaimRequest, context: Any
    ) -> AsyncIterator[ledger_pb2.ClaimReply]:
        answers = await self._ledger.claim(
            [(wish.execution, wish.epoch) for wish in request.wishes],
            cluster=request.cluster,
            cluster_epoch=request.cluster_epoch,
        )
        for claimed in answers:
            for page in codec.claim_pages(claimed):
                yield page

    async def Commit(
        self, request: ledger_pb2.CommitRequest, context: Any
    ) -> ledger_pb2.CommitReply:
        return codec.committed_to_wire(await self._ledger.commit(codec.batch_from_wire(request)))

    async def FetchSpec(
        self, request: ledger_pb2.FetchSpecRequest, context: Any
    ) -> ledger_pb2.FetchSpecReply:
        data = await self._ledger.spec(request.digest)
        return ledger_pb2.FetchSpecReply(spec=spec_pb2.WorkflowSpec.FromString(data))

    async def FetchBundle(
        self, request: ledger_pb2.FetchBundleRequest, context: Any
    ) -> AsyncIterator[ledger_pb2.FetchBundleChunk]:
        async for piece in self._ledger.bundle(request.digest):
            yield ledger_pb2.FetchBundleChunk(data=piece)
