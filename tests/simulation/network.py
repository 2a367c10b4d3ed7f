"""gRPC without sockets: real servicers behind real stubs, messages as bytes, links that can be cut.

Every message takes a while that chance decides, so calls overtake each other as they do on a wire.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
from whimbrel.errors import WhimbrelError

FASTEST, SLOWEST = 0.0005, 0.02
"""Seconds of one message."""
HEALTH = "/grpc.health.v1.Health/Check"


class Server:
    """What `add_..._to_server` needs of a server; a new one for each life of a process."""

    def __init__(self) -> None:
        self.methods: dict[str, Any] = {HEALTH: grpc.unary_unary_rpc_method_handler(_well)}
        self.up = True
        self.calls: dict[asyncio.Task[Any], None] = {}

    def add_registered_method_handlers(self, service: str, handlers: dict[str, Any]) -> None:
        self.methods |= {f"/{service}/{name}": one for name, one in handlers.items()}

    def add_generic_rpc_handlers(self, handlers: Iterable[Any]) -> None:
        for handler in handlers:
            known = getattr(handler, "_method_handlers", {})
            self.methods |= {_path(name): one for name, one in known.items()}

    async def crash(self) -> None:
        self.up = False
        calls = list(self.calls)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)


async def _well(request: Any, context: Any) -> bytes:
    return b""


def lost(why: str, code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE) -> grpc.aio.AioRpcError:
    """As gRPC says it."""
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), why)


def _path(name: Any) -> str:
    return name.decode() if isinstance(name, bytes) else name


@dataclass
class Link:
    """Between two processes; `cut` loses every message, one way or both."""

    chance: random.Random
    cut_there: bool = False
    cut_back: bool = False

    @property
    def whole(self) -> bool:
        return not (self.cut_there or self.cut_back)

    def cut(self, *, there: bool = True, back: bool = True) -> None:
        self.cut_there, self.cut_back = there, back

    def heal(self) -> None:
        self.cut_there = self.cut_back = False

    async def cross(self, *, back: bool = False) -> None:
        await asyncio.sleep(self.chance.uniform(FASTEST, SLOWEST))
        while self.cut_back if back else self.cut_there:
            await asyncio.sleep(0.1)  # a lost message is sent again until the caller gives up


@dataclass
class Context:
    def invocation_metadata(self) -> tuple[Any, ...]:
        return ()

    def time_remaining(self) -> float | None:
        return None


@dataclass
class Channel:
    """`server()` is whoever listens now, None = nobody."""

    link: Link
    server: Callable[[], Server | None]
    patience: float = 20.0
    closed: bool = field(default=False, init=False)

    async def close(self, grace: float | None = None) -> None:
        self.closed = True

    def unary_unary(self, path: str, *args: Any, **codec: Any) -> Any:
        encode, decode = _codec(args, codec)

        async def call(request: Any, *, timeout: float | None = None, **_: Any) -> Any:
            return await self._bounded(self._single(path, encode(request), decode), timeout)

        return call

    def unary_stream(self, path: str, *args: Any, **codec: Any) -> Any:
        encode, decode = _codec(args, codec)

        def call(request: Any, *, timeout: float | None = None, **_: Any) -> "Pages":
            return Pages(self._bounded(self._pages(path, encode(request), decode), timeout))

        return call

    def stream_stream(self, path: str, *args: Any, **codec: Any) -> Any:
        encode, decode = _codec(args, codec)

        def call(said: AsyncIterator[Any], **_: Any) -> "Call":
            return Call(self, path, said, encode, decode)

        return call

    stream_unary = unary_unary

    async def _bounded(self, work: Any, timeout: float | None) -> Any:
        try:
            async with asyncio.timeout(timeout or self.patience):
                return await work
        except TimeoutError:
            raise lost("no answer in time", grpc.StatusCode.DEADLINE_EXCEEDED) from None

    async def arrive(self, path: str) -> tuple[Server, Any]:
        await self.link.cross()
        server = self.server()
        if server is None or not server.up or self.closed:
            raise lost("nobody listens there")
        return server, server.methods[path]

    async def _served(self, server: Server, work: Any) -> Any:
        """In a task of the server's: who asked may give up, and the work is done all the same."""
        task = asyncio.ensure_future(work)
        server.calls[task] = None
        task.add_done_callback(server.calls.pop)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():
                raise lost("the server died") from None
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
            raise

    async def _single(self, path: str, request: bytes, decode: Any) -> Any:
        server, handler = await self.arrive(path)
        message = handler.request_deserializer or _same
        work = handler.unary_unary(message(request), Context())
        answer = await self._answered(self._served(server, work))
        return decode((handler.response_serializer or _same)(answer))

    async def _pages(self, path: str, request: bytes, decode: Any) -> list[Any]:
        server, handler = await self.arrive(path)
        message = handler.request_deserializer or _same

        async def gathered() -> list[Any]:
            return [one async for one in handler.unary_stream(message(request), Context())]

        pages = await self._answered(self._served(server, gathered()))
        return [decode((handler.response_serializer or _same)(page)) for page in pages]

    async def _answered(self, work: Any) -> Any:
        try:
            answer = await work
        except WhimbrelError:
            await self.link.cross(back=True)
            raise
        await self.link.cross(back=True)
        return answer


class Pages:
    """Of a call that answers with a stream."""

    def __init__(self, work: Any) -> None:
        self._work = work

    async def __aiter__(self) -> AsyncIterator[Any]:
        for page in await self._work:
            yield page

    def cancel(self) -> None:
        self._work.close()


class Call:
    """Both ways at once. A cut loses what is on its way and tells neither end."""

    def __init__(self, channel: Channel, path: str, said: Any, encode: Any, decode: Any) -> None:
        self._channel, self._path, self._said = channel, path, said
        self._encode, self._decode = encode, decode
        self._cancelled = False

    def cancel(self) -> None:
        self._cancelled = True

    async def __aiter__(self) -> AsyncIterator[Any]:
        server, handler = await self._channel.arrive(self._path)

        async def incoming() -> AsyncIterator[Any]:
            async for message in self._said:
                await self._channel.link.cross()
                yield handler.request_deserializer(self._encode(message))

        answers = handler.stream_stream(incoming(), Context())
        try:
            while True:
                waiting = asyncio.ensure_future(anext(answers))
                server.calls[waiting] = None
                waiting.add_done_callback(server.calls.pop)
                try:
                    answer = await waiting
                except StopAsyncIteration:
                    return
                except asyncio.CancelledError:
                    if server.up:
                        raise
                    raise lost("the server died") from None
                await self._channel.link.cross(back=True)
                yield self._decode(handler.response_serializer(answer))
        finally:
            await answers.aclose()


def _same(value: Any) -> Any:
    return value


def _codec(args: tuple[Any, ...], codec: dict[str, Any]) -> tuple[Any, Any]:
    """The stubs' own serializers, however they give them."""
    encode = codec.get("request_serializer") or (args[0] if args else None) or _same
    decode = codec.get("response_deserializer") or (args[1] if len(args) > 1 else None) or _same
    return encode, decode
