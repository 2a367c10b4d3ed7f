"""The client against an endpoint in this process: what it sends, what it makes of answers and
errors."""

import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from whimbrel import client_source, task, workflow
from whimbrel.client import AsyncClient, Client
from whimbrel.errors import Conflict, ExecutionFailed, InvalidInput, NotFound, Unreachable
from whimbrel.service import rpc
from whimbrel.spec import Mode, Phase, PlacementPolicy
from whimbrel.wire.v1 import (
    execution_pb2,
    execution_pb2_grpc,
    registry_pb2,
    registry_pb2_grpc,
)

from tests.service.test_rpc import free_address

pytestmark = pytest.mark.anyio


@task
def double(x: int) -> int:
    return 2 * x


@workflow
def doubled(x: int = 1) -> int:
    return double(x=x)


class Endpoint(registry_pb2_grpc.RegistryServicer, execution_pb2_grpc.ExecutionsServicer):
    """Remembers what it was told; a run goes through the views it is given."""

    def __init__(self) -> None:
        self.bundles: dict[str, bytes] = {}
        self.registered: list[Any] = []
        self.launched: list[Any] = []
        self.views = [execution_pb2.RUNNING, execution_pb2.SUCCEEDED]
        self.cuts = 0

    async def HasBundle(self, request: Any, context: Any) -> Any:
        return registry_pb2.HasBundleReply(
            present=request.digest in self.bundles, limit_bytes=1 << 25
        )

    async def PutBundle(self, request_iterator: Any, context: Any) -> Any:
        chunks = [chunk async for chunk in request_iterator]
        data = b"".join(chunk.data for chunk in chunks)
        self.bundles[chunks[0].digest] = data
        return registry_pb2.PutBundleReply(digest=chunks[0].digest, bytes=len(data))

    async def Register(self, request: Any, context: Any) -> Any:
        if request.version == "taken":
            raise Conflict("version taken has another meaning", remedy="choose another")
        self.registered.append(request)
        return registry_pb2.RegisterReply(
            registered=[
                registry_pb2.Registered(
                    key=registry_pb2.VersionKey(name=item.name, version=request.version),
                    created=True,
                )
                for item in request.workflows
            ]
        )

    def _view(self, name: str, phase: Any) -> Any:
        done = phase == execution_pb2.SUCCEEDED
        failed = phase == execution_pb2.FAILED
        error = execution_pb2.TaskError(owner="user", kind="raised", message="boom", node="double")
        return execution_pb2.Execution(
            key=execution_pb2.ExecutionKey(project="p", domain="d", name=name),
            phase=phase,
            outputs_json='{"o0": 42}' if done else "",
            error=error if failed else None,
        )

    async def Launch(self, request: Any, context: Any) -> Any:
        self.launched.append(request)
        return self._view(request.key.name or "chosen", execution_pb2.QUEUED)

    async def Get(self, request: Any, context: Any) -> Any:
        raise NotFound(f"there is no execution {request.key.name}")

    async def Watch(self, request: Any, context: Any) -> AsyncIterator[Any]:
        for phase in self.views:
            yield self._view(request.key.name, phase)
            if self.cuts:
                self.cuts -= 1
                raise Unreachable("restarting")


@pytest.fixture
def endpoint() -> Endpoint:
    return Endpoint()


@pytest.fixture
async def client(endpoint: Endpoint) -> AsyncIterator[AsyncClient]:
    def register(server: grpc.aio.Server) -> None:
        registry_pb2_grpc.add_RegistryServicer_to_server(endpoint, server)
        execution_pb2_grpc.add_ExecutionsServicer_to_server(endpoint, server)

    listen = free_address()
    server = await rpc.serve(register, listen=listen)
    async with AsyncClient(listen, project="p", domain="d") as connected:
        yield connected
    await server.stop(None)


async def test_code_is_sent_once_and_named_by_its_content(
    client: AsyncClient, endpoint: Endpoint
) -> None:
    await client.register(doubled)
    ((digest, data),) = endpoint.bundles.items()
    assert hashlib.sha256(data).hexdigest() == digest
    endpoint.bundles[digest] = b"untouched"
    await client.register(doubled)
    assert endpoint.bundles == {digest: b"untouched"}


async def test_a_version_is_derived_and_stable(client: AsyncClient, endpoint: Endpoint) -> None:
    await client.register(doubled)
    await client.register(doubled)
    first, second = endpoint.registered
    assert first.version == second.version == client_source.prepare(doubled).version
    assert len(first.version) == client_source.VERSION_DIGITS


async def test_a_taken_version_arrives_as_what_it_is(client: AsyncClient) -> None:
    with pytest.raises(Conflict) as caught:
        await client.register(doubled, version="taken")
    assert caught.value.remedy == "choose another"


async def test_a_launch_carries_inputs_name_and_placement(
    client: AsyncClient, endpoint: Endpoint
) -> None:
    placement = PlacementPolicy(regions=("eu-*",), mode=Mode.IDEMPOTENT)
    execution = await client.launch(doubled, {"x": 21}, name="mine", placement=placement)
    (request,) = endpoint.launched
    assert json.loads(request.inputs_json) == {"x": 21}
    assert (request.key.project, request.key.domain, request.key.name) == ("p", "d", "mine")
    assert list(request.placement.regions) == ["eu-*"]
    assert request.workflow.name == doubled.name
    assert execution.phase is Phase.QUEUED


async def test_without_a_placement_the_workflow_decides(
    client: AsyncClient, endpoint: Endpoint
) -> None:
    await client.launch("m.w", {"x": 1})
    assert not endpoint.launched[0].HasField("placement")


@pytest.mark.parametrize("inputs", [{"y": 1}, {"x": "one"}])
async def test_inputs_that_do_not_fit_are_refused_before_a_launch(
    client: AsyncClient, endpoint: Endpoint, inputs: dict[str, Any]
) -> None:
    with pytest.raises(InvalidInput):
        await client.launch(doubled, inputs)
    assert not endpoint.launched


async def test_outputs_wait_for_the_end(client: AsyncClient) -> None:
    execution = await client.launch("m.w")
    assert await execution.outputs() == {"o0": 42}
    assert execution.phase is Phase.SUCCEEDED


async def test_a_failed_run_raises_with_its_node(client: AsyncClient, endpoint: Endpoint) -> None:
    endpoint.views = [execution_pb2.FAILED]
    with pytest.raises(ExecutionFailed, match="double: boom"):
        await (await client.launch("m.w", name="bad")).wait()


async def test_watching_survives_an_endpoint_that_restarts(
    client: AsyncClient, endpoint: Endpoint
) -> None:
    endpoint.cuts = 1
    execution = await client.launch("m.w")
    phases = [view.phase async for view in execution.watch()]
    assert phases == [Phase.RUNNING, Phase.RUNNING, Phase.SUCCEEDED]


async def test_an_error_of_the_endpoint_keeps_its_type(client: AsyncClient) -> None:
    with pytest.raises(NotFound, match="no execution lost"):
        await client.get("lost")


async def test_nobody_at_the_endpoint_is_said_with_the_way_out() -> None:
    address = free_address()
    async with AsyncClient(address) as client:
        with pytest.raises(Unreachable) as caught:
            await client.get("x")
    assert address in caught.value.message
    assert "whimbrel up" in caught.value.remedy


def test_a_file_without_workflows_is_refused(tmp_path: Path) -> None:
    (tmp_path / "nothing_here.py").write_text("x = 1")
    loaded = client_source.load(tmp_path / "nothing_here.py")
    with pytest.raises(InvalidInput, match="no workflow"):
        client_source.prepare(loaded)
    with pytest.raises(InvalidInput, match="no workflow 'y'"):
        loaded.workflow("y")


def test_one_client_after_another_in_one_process() -> None:
    """gRPC keeps to the event loop it met first: the second client finds it alive."""
    with Client("127.0.0.1:1") as first, pytest.raises(Unreachable):
        first.clusters()
    with Client("127.0.0.1:1") as second, pytest.raises(Unreachable):
        second.clusters()
