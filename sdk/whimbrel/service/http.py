"""The small HTTP door for probes and scrapers: /healthz, /readyz, /metrics.

Called by each `__main__`; answers GET only, one request a connection. Users' HTTP is another
server's matter.
"""

import asyncio
import contextlib
from collections.abc import Callable

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from whimbrel.service.rpc import split_address

READ_SECONDS = 5.0
"""For a request's head. Too short refuses a slow probe, too long keeps idle connections."""


def answer(path: str, *, ready: bool) -> tuple[int, str, bytes]:
    """Status, content type and body of a GET."""
    match path.partition("?")[0]:
        case "/healthz":
            return 200, "text/plain", b"ok\n"
        case "/readyz":
            return (200, "text/plain", b"ok\n") if ready else (503, "text/plain", b"not ready\n")
        case "/metrics":
            return 200, CONTENT_TYPE_LATEST, generate_latest()
        case _:
            return 404, "text/plain", b"not here: /healthz, /readyz, /metrics\n"


async def serve_http(
    listen: str, *, ready: Callable[[], bool] = lambda: True
) -> asyncio.Server | None:
    """Listens on host:port until the server is closed; "" means none."""
    if not listen:
        return None

    async def on_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError, ValueError):
            async with asyncio.timeout(READ_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
            path = head.split(b" ", 2)[1].decode("latin-1")
            status, kind, body = answer(path, ready=ready())
            writer.write(
                f"HTTP/1.1 {status} \r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
                f"Connection: close\r\n\r\n".encode()
                + body
            )
            await writer.drain()
        writer.close()

    host, port = split_address(listen)
    return await asyncio.start_server(on_connection, host, port)
