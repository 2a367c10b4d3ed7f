"""gRPC `Registry`: versions and bundles. Turns messages into values and back."""

from collections.abc import AsyncIterator
from typing import Any

from whimbrel.codec import workflow_from_wire
from whimbrel.wire.v1 import registry_pb2, registry_pb2_grpc, spec_pb2

from control_plane.registry.bundles import LIMIT
from control_plane.registry.service import Key, Registry, Stored


def key_from_wire(message: registry_pb2.VersionKey) -> Key:
    return Key(message.project, message.domain, message.name, message.version)


def key_to_wire(key: Key) -> registry_pb2.VersionKey:
    return registry_pb2.VersionKey(
        project=key.project, domain=key.domain, name=key.name, version=key.version
    )


def version_to_wire(stored: Stored, *, whole: bool) -> registry_pb2.Version:
    return registry_pb2.Version(
        key=key_to_wire(stored.key),
        digest=stored.digest,
        created_ns=stored.created_ns,
        workflow=spec_pb2.WorkflowSpec.FromString(stored.spec) if whole else None,
    )


class RegistryServicer(registry_pb2_grpc.RegistryServicer):
    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    async def Register(
        self, request: registry_pb2.RegisterRequest, context: Any
    ) -> registry_pb2.RegisterReply:
        done = await self._registry.register(
            request.project,
            request.domain,
            request.version,
            [workflow_from_wire(message) for message in request.workflows],
        )
        return registry_pb2.RegisterReply(
            registered=[
                registry_pb2.Registered(
                    key=key_to_wire(item.key), digest=item.digest, created=item.created
                )
                for item in done
            ]
        )

    async def GetVersion(
        self, request: registry_pb2.GetVersionRequest, context: Any
    ) -> registry_pb2.Version:
        return version_to_wire(await self._registry.get(key_from_wire(request.key)), whole=True)

    async def ListVersions(
        self, request: registry_pb2.ListVersionsRequest, context: Any
    ) -> registry_pb2.ListVersionsReply:
        found = await self._registry.list(
            request.project, request.domain, request.name, request.limit
        )
        return registry_pb2.ListVersionsReply(
            versions=[version_to_wire(stored, whole=False) for stored in found]
        )

    async def HasBundle(
        self, request: registry_pb2.HasBundleRequest, context: Any
    ) -> registry_pb2.HasBundleReply:
        return registry_pb2.HasBundleReply(
            present=await self._registry.has_bundle(request.digest), limit_bytes=LIMIT
        )

    async def PutBundle(
        self, request_iterator: AsyncIterator[registry_pb2.BundleChunk], context: Any
    ) -> registry_pb2.PutBundleReply:
        async def pieces() -> AsyncIterator[tuple[str, bytes]]:
            async for chunk in request_iterator:
                yield chunk.digest, chunk.data

        digest, size = await self._registry.put_bundle(pieces())
        return registry_pb2.PutBundleReply(digest=digest, bytes=size)
