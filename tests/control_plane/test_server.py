"""The whole server in this process, its doors open, its router away: what a client is answered."""

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import grpc.aio
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from whimbrel.codec import workflow_to_wire
from whimbrel.service.rpc import channel
from whimbrel.wire.v1 import (
    cluster_pb2,
    cluster_pb2_grpc,
    execution_pb2,
    execution_pb2_grpc,
    ledger_pb2,
    ledger_pb2_grpc,
    placement_pb2,
    registry_pb2,
    registry_pb2_grpc,
)

from control_plane.__main__ import run
from control_plane.settings import Settings
from tests.control_plane.world import BUNDLE, CODE, chain

pytestmark = pytest.mark.anyio


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[grpc.aio.Channel]:
    address = f"127.0.0.1:{free_port()}"
    settings = Settings(
        listen=address, database_url=f"sqlite+aiosqlite:///{tmp_path}/data/cp.db",
        router=f"127.0.0.1:{free_port()}", keep_traces=True, stop_seconds=0.1,
    )  # fmt: skip
    stop = asyncio.Event()
    server = asyncio.create_task(run(settings, stop))
    door = channel(address)
    async with asyncio.timeout(20):
        await door.channel_ready()
    yield door
    await door.close(None)
    stop.set()
    await server


async def registered(door: grpc.aio.Channel) -> None:
    registry = registry_pb2_grpc.RegistryStub(door)
    await registry.PutBundle(iter([registry_pb2.BundleChunk(digest=BUNDLE, data=CODE)]))
    assert (await registry.HasBundle(registry_pb2.HasBundleRequest(digest=BUNDLE))).present
    reply = await registry.Register(
        registry_pb2.RegisterRequest(
            project="p", domain="d", version="v1", workflows=[workflow_to_wire(chain("a", "b"))]
        )
    )
    assert reply.registered[0].created


async def test_from_register_to_cancel(door: grpc.aio.Channel) -> None:
    await registered(door)
    executions = execution_pb2_grpc.ExecutionsStub(door)
    key = execution_pb2.ExecutionKey(project="p", domain="d", name="run")
    workflow = registry_pb2.VersionKey(project="p", domain="d", name="flows.chain")
    launched = await executions.Launch(
        execution_pb2.LaunchRequest(key=key, workflow=workflow, inputs_json='{"n": 4}')
    )
    assert launched.phase == execution_pb2.QUEUED
    assert len(launched.trace_id) == 32
    seen: list[int] = []
    async with asyncio.timeout(20):
        async for message in executions.Watch(execution_pb2.GetExecutionRequest(key=key)):
            if not seen:
                await executions.Cancel(execution_pb2.CancelRequest(key=key))
            seen.append(message.phase)
    assert seen == [execution_pb2.QUEUED, execution_pb2.ABORTED]
    listed = await executions.List(execution_pb2.ListExecutionsRequest(project="p", domain="d"))
    assert [item.key.name for item in listed.executions] == ["run"]


async def test_errors_have_a_status_and_a_remedy(door: grpc.aio.Channel) -> None:
    executions = execution_pb2_grpc.ExecutionsStub(door)
    key = execution_pb2.ExecutionKey(project="p", domain="d", name="nothing")
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await executions.Get(execution_pb2.GetExecutionRequest(key=key))
    assert raised.value.code() is grpc.StatusCode.NOT_FOUND


async def test_agents_and_clusters(door: grpc.aio.Channel) -> None:
    clusters = cluster_pb2_grpc.ClustersStub(door)
    await clusters.Register(
        cluster_pb2.RegisterClusterRequest(
            registration=placement_pb2.Registration(name="east", region="us", labels={"a": "b"})
        )
    )
    ledger = ledger_pb2_grpc.LedgerStub(door)
    request = ledger_pb2.OpenSessionRequest(cluster="east", incarnation="i", region="us")
    assert (await ledger.OpenSession(request)).cluster_epoch == 1
    known = await clusters.Get(cluster_pb2.GetClusterRequest(name="east"))
    assert (known.cluster_epoch, known.registration.labels["a"]) == (1, "b")
    assert not known.HasField("live")
    pieces = ledger.FetchBundle(ledger_pb2.FetchBundleRequest(digest=BUNDLE))
    with pytest.raises(grpc.aio.AioRpcError):
        _ = [piece async for piece in pieces]
    await registered(door)
    pieces = ledger.FetchBundle(ledger_pb2.FetchBundleRequest(digest=BUNDLE))
    assert b"".join([piece.data async for piece in pieces]) == CODE


async def test_spans_of_everybody_make_one_trace(door: grpc.aio.Channel) -> None:
    await registered(door)
    executions = execution_pb2_grpc.ExecutionsStub(door)
    key = execution_pb2.ExecutionKey(project="p", domain="d", name="run")
    workflow = registry_pb2.VersionKey(project="p", domain="d", name="flows.chain")
    launched = await executions.Launch(execution_pb2.LaunchRequest(key=key, workflow=workflow))
    request = trace_service_pb2.ExportTraceServiceRequest()
    resource = request.resource_spans.add()
    attribute = resource.resource.attributes.add(key="service.name")
    attribute.value.string_value = "agent"
    resource.scope_spans.add().spans.add(
        trace_id=bytes.fromhex(launched.trace_id), span_id=b"12345678", name="node",
        start_time_unix_nano=5, end_time_unix_nano=6,
    )  # fmt: skip
    for _ in range(2):
        await trace_service_pb2_grpc.TraceServiceStub(door).Export(request)
    async with asyncio.timeout(10):
        while True:
            reply = await executions.Trace(execution_pb2.TraceRequest(key=key))
            names = {(span.service, span.name) for span in reply.spans}
            if names == {("agent", "node"), ("control-plane", "execution")}:
                break
            await asyncio.sleep(0.05)
    assert len(reply.spans) == 2
