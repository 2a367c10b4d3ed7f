"""The link between one agent and one router: a TCP relay that can be cut like a cable.

Owned by the supervisor; agents dial it instead of the router. A cut forwards nothing and tells
nobody, so both ends keep half-open connections, as behind a dead network; healing drops them.
"""

import asyncio
import contextlib

CHUNK_BYTES = 256 * 1024


class Relay:
    def __init__(self, host: str, port: int) -> None:
        """Forwards to host:port; listens on a port of its own, see `address`."""
        self._upstream = (host, port)
        self._open = asyncio.Event()
        self._open.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.address = ""

    async def start(self, host: str) -> None:
        self._server = await asyncio.start_server(self._accept, host, 0)
        self.address = f"{host}:{self._server.sockets[0].getsockname()[1]}"

    def cut(self) -> None:
        self._open.clear()

    def open(self) -> None:
        """Forwards from now on, also what came while it was cut."""
        self._open.set()

    def heal(self) -> None:
        """Forwards again; connections from the time of the cut are dropped, their bytes are
        lost."""
        if self._open.is_set():
            return
        for writer in self._writers:
            writer.transport.abort()
        for task in self._tasks:
            task.cancel()
        self._open.set()

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        up: asyncio.StreamWriter | None = None
        try:
            await self._open.wait()
            back, up = await asyncio.open_connection(*self._upstream)
            self._writers.add(up)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._forward(reader, up))
                group.create_task(self._forward(back, writer))
        except (OSError, BaseExceptionGroup, asyncio.CancelledError):
            pass  # either end has gone: the other learns it by its own connection's end
        finally:
            for end in (writer, up):
                if end is not None:
                    self._writers.discard(end)
                    with contextlib.suppress(RuntimeError):
                        end.transport.abort()
            self._tasks.discard(task)

    async def _forward(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(CHUNK_BYTES):
            await self._open.wait()
            sink.write(data)
            await sink.drain()
        raise ConnectionResetError  # ends the other direction too
