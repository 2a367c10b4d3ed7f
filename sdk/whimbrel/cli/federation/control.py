"""The supervisor's own door: a Unix socket in the data folder, one JSON object a line each way.

`up` serves it, `down` and `sandbox` call it. A request is {"do": verb, ...}; the answer {"ok":
true, ...} or an error.
"""

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable
from typing import Any

from whimbrel import client_errors
from whimbrel.cli.federation.folder import Folder
from whimbrel.errors import Unreachable, WhimbrelError

ANSWER_SECONDS = 90.0
"""For one request; healing waits for the agent to be heard again. Too short reports a slow machine
as a fault."""

Handler = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]


async def serve(folder: Folder, handler: Handler) -> asyncio.Server:
    async def on_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                try:
                    answer = {"ok": True, **await handler(json.loads(line))}
                except WhimbrelError as error:
                    answer = {"ok": False, "code": error.code} | json.loads(
                        client_errors.payload(error)
                    )
                writer.write(json.dumps(answer).encode() + b"\n")
                await writer.drain()
        except ConnectionError:
            pass  # whoever asked has gone
        finally:
            writer.close()

    folder.socket.unlink(missing_ok=True)
    return await asyncio.start_unix_server(on_connection, folder.socket)


def call(folder: Folder, request: dict[str, Any]) -> dict[str, Any]:
    """One request to the supervisor of this folder; raises what it refuses."""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(ANSWER_SECONDS)
            connection.connect(str(folder.socket))
            connection.sendall(json.dumps(request).encode() + b"\n")
            with connection.makefile("rb") as lines:
                answer: dict[str, Any] = json.loads(lines.readline() or b"{}")
    except OSError as error:
        raise Unreachable(
            f"no federation runs in {folder.root}",
            remedy="start one: whimbrel up; or name its folder with --data-dir",
        ) from error
    if answer.get("ok"):
        return answer
    said = {key: answer.get(key, "") for key in ("type", "message", "remedy", "place")}
    raise client_errors.error_of(
        answer.get("code", "INTERNAL"), said["message"] or "no answer", json.dumps(said).encode()
    )
