"""The one door to etcd: get, compare-and-set, leases, and a prefix followed through outages.

Called by assignments, sessions, registrations and the inventory; the only file that imports the
client library. Every failure to get an answer is `EtcdDown`; nothing else leaks.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false
# The library's generated messages carry no types; they are given types here, field by field.

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc
import grpc.aio
from etcd3aio._protobuf import (  # pyright: ignore[reportPrivateUsage]  # named nowhere else
    WatchCreateRequest,
    WatchRequest,
)
from etcd3aio.connections import ConnectionManager
from etcd3aio.errors import EtcdError
from etcd3aio.kv import KVService, prefix_range_end
from etcd3aio.lease import LeaseService
from etcd3aio.watch import WatchService
from whimbrel.errors import Unreachable

log = logging.getLogger(__name__)
T = TypeVar("T")
_aio: Any = grpc.aio  # its stubs leave EOF out

RETRY_SECONDS = 0.2
"""Between attempts to read a prefix anew. Too short burns CPU in an outage, too long adds to it."""

_OPTIONS: dict[str, int] = {
    "grpc.initial_reconnect_backoff_ms": 100,
    "grpc.min_reconnect_backoff_ms": 500,
    "grpc.max_reconnect_backoff_ms": 1_000,
    # A list of every assignment is one answer.
    "grpc.max_receive_message_length": -1,
    "grpc.keepalive_time_ms": 2_000,
    "grpc.keepalive_timeout_ms": 2_000,
    "grpc.http2.ping_timeout_ms": 2_000,
    "grpc.http2.max_pings_without_data": 0,
    "grpc.use_local_subchannel_pool": 1,
    "grpc.enable_http_proxy": 0,
}


class EtcdDown(Unreachable):
    """etcd gave no answer in time; whether the change was made is not known."""


class LeaseGone(Exception):
    """The lease that a key was to hang on has ended."""


@dataclass(frozen=True, slots=True)
class Entry:
    key: str
    value: bytes


@dataclass(frozen=True, slots=True)
class Listed:
    """The whole prefix, read anew: what is not in it is not there. First of all, and after every
    cut of the watch, because a wiped etcd counts its revisions from one again."""

    entries: Sequence[Entry]


@dataclass(frozen=True, slots=True)
class Put:
    entry: Entry


@dataclass(frozen=True, slots=True)
class Deleted:
    key: str


@dataclass(frozen=True, slots=True)
class Cut:
    """The view is lost until the next Listed."""


Change = Listed | Put | Deleted | Cut


@dataclass(frozen=True, slots=True)
class Swap:
    """Of a compare-and-set: done, or what stood there instead (None = nothing)."""

    done: bool
    stored: bytes | None


@dataclass(frozen=True, slots=True)
class Lease:
    id: int
    ttl: float


class _Watch(WatchService):
    """One stream, which ends when it breaks. The library's own watch reconnects and goes on from a
    revision that a wiped etcd will not reach for hours, without a word."""

    async def once(self, start: bytes, end: bytes, revision: int) -> AsyncGenerator[Any, None]:
        stream: Any = self._stub.Watch()
        create = WatchCreateRequest(key=start, range_end=end, start_revision=revision)
        try:
            await stream.write(WatchRequest(create_request=create))
            while (answer := await stream.read()) is not _aio.EOF:
                yield answer
        finally:
            stream.cancel()


def _text(value: Any) -> str:
    return bytes(value).decode()


class Etcd:
    """`timeout` in seconds bounds every single call. `namespace` goes before every key."""

    def __init__(self, endpoints: Sequence[str], *, timeout: float, namespace: str = "") -> None:
        manager = ConnectionManager(endpoints)
        options = {**dict(manager.grpc_options), **_OPTIONS}
        # The manager only knows literal addresses; a single name is gRPC's to resolve.
        target = endpoints[0] if len(endpoints) == 1 else manager.target
        self._channel = grpc.aio.insecure_channel(target, options=list(options.items()))
        self._kv = KVService(self._channel, max_attempts=1)
        self._lease = LeaseService(self._channel, max_attempts=1)
        self._timeout = timeout
        self._namespace = namespace

    async def close(self) -> None:
        await self._channel.close(None)

    async def _call(self, what: Awaitable[T], *, timeout: float | None = None) -> T:
        try:
            async with asyncio.timeout(timeout or self._timeout):
                return await what
        except (EtcdError, TimeoutError) as cause:
            raise EtcdDown(f"etcd does not answer: {cause or 'timeout'}") from cause
        except grpc.aio.AioRpcError as cause:
            if cause.code() is grpc.StatusCode.NOT_FOUND:
                raise LeaseGone(cause.details()) from cause
            raise EtcdDown(f"etcd refuses: {cause.code().name} {cause.details()}") from cause

    async def get(self, key: str, *, timeout: float | None = None) -> bytes | None:
        answer: Any = await self._call(self._kv.get(self._namespace + key), timeout=timeout)
        return bytes(answer.kvs[0].value) if answer.kvs else None

    async def swap(
        self, key: str, value: bytes | None, *, expected: bytes | None, lease: int = 0
    ) -> Swap:
        """Puts `value` (None = deletes) if the key still has the value `expected` (None = absent).
        Raises EtcdDown, LeaseGone."""
        name = self._namespace + key
        if expected is None:
            compare = KVService.txn_compare_create_revision(name, 0)
        else:
            compare = KVService.txn_compare_value(name, expected)
        if value is None:
            change = KVService.txn_op_delete(name)
        else:
            change = KVService.txn_op_put(name, value, lease=lease)
        read = KVService.txn_op_get(name)
        answer: Any = await self._call(self._kv.txn([compare], [change], [read]))
        if answer.succeeded:
            return Swap(True, value)
        found = answer.responses[0].response_range.kvs
        return Swap(False, bytes(found[0].value) if found else None)

    async def put(self, key: str, value: bytes, *, lease: int = 0) -> None:
        await self._call(self._kv.put(self._namespace + key, value, lease=lease))

    async def grant(self, ttl: int) -> Lease:
        answer: Any = await self._call(self._lease.grant(ttl))
        return Lease(int(answer.ID), float(answer.TTL))

    async def keep_alive(self, lease: int, *, timeout: float) -> float:
        """Seconds the lease has again; 0 = it is gone, which etcd does not call an error."""

        async def once() -> float:
            stream: Any = self._lease.keep_alive(lease)
            try:
                async for answer in stream:
                    return float(answer.TTL)
            finally:
                stream.cancel()
            raise EtcdDown("etcd closed the stream")

        return await self._call(once(), timeout=timeout)

    async def revoke(self, lease: int) -> None:
        with contextlib.suppress(LeaseGone):
            await self._call(self._lease.revoke(lease))

    async def _list(self, prefix: str) -> tuple[list[Entry], int]:
        name = self._namespace + prefix
        answer: Any = await self._call(self._kv.get(name, prefix_range_end(name)))
        entries = [Entry(self._key(pair.key), bytes(pair.value)) for pair in answer.kvs]
        return entries, int(answer.header.revision)

    async def list(self, prefix: str) -> list[Entry]:
        return (await self._list(prefix))[0]

    async def follow(self, prefix: str) -> AsyncIterator[Change]:
        """Listed, then every change in order; after a cut, of whatever cause, Listed again."""
        whole = True
        told = False
        while True:
            try:
                entries, revision = await self._list(prefix)
                yield Listed(entries)
                whole = told = False
                async with contextlib.aclosing(self._watch(prefix, revision + 1)) as changes:
                    async for change in changes:
                        yield change
            except EtcdDown as cause:
                if not told:
                    log.warning("etcd is out of sight: %s", cause.message)
                told = True
            if not whole:
                whole = True
                yield Cut()
            await asyncio.sleep(RETRY_SECONDS)

    async def _watch(self, prefix: str, revision: int) -> AsyncGenerator[Change, None]:
        name = self._namespace + prefix
        stream = _Watch(self._channel).once(name.encode(), prefix_range_end(name), revision)
        try:
            async with contextlib.aclosing(stream):
                async for answer in stream:
                    if answer.compact_revision or answer.canceled:
                        return
                    for event in answer.events:
                        key = self._key(event.kv.key)
                        if event.type:
                            yield Deleted(key)
                        else:
                            yield Put(Entry(key, bytes(event.kv.value)))
        except grpc.aio.AioRpcError as cause:
            raise EtcdDown(f"{cause.code().name} {cause.details()}") from cause

    def _key(self, raw: Any) -> str:
        return _text(raw).removeprefix(self._namespace)
