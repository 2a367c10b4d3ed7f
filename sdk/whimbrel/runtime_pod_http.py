"""Objects over signed URLs with nothing but the standard library: whole bytes or streamed files.

Used by `runtime_order.py` and `runtime_pod.py` inside a pod, where a URL is all there is: no client
of a store, no keys. What may pass (a lost connection, a store that is busy) is tried again here.
"""

import hashlib
import http.client
import os
import random
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypeVar
from urllib.parse import SplitResult, urlsplit

T = TypeVar("T")

_CHUNK = 1 << 20
_PASSING = {408, 425, 429, 500, 502, 503, 504}
_LONGEST_PAUSE = 10.0


class Refusal(OSError):
    """The store answered, and means it: trying the same again is of no use."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"the store answered {status}: {text}")
        self.status = status


class DiskError(Exception):
    """This machine's disk does not take it: no matter of the network, and not tried again."""


class _Passing(OSError):
    """An answer that may be another one a moment later."""


@dataclass(frozen=True, slots=True)
class Http:
    """`patience` seconds are spent on tries after the first failure: too little breaks a task for a
    store that restarts, too much keeps a pod for one that is gone. `timeout` is of one silence on a
    connection. Raises OSError in the end, Refusal at once."""

    patience: float = 120.0
    timeout: float = 60.0
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep

    def put(self, url: str, data: bytes | Path) -> None:
        def once() -> None:
            if isinstance(data, bytes):
                self._send(url, data, len(data))
                return
            with data.open("rb") as file:
                self._send(url, file, os.fstat(file.fileno()).st_size)

        self._insist(once)

    def get(self, url: str) -> bytes:
        def once() -> bytes:
            with closing(self._connection(urlsplit(url))) as connection:
                response = _answer(connection, "GET", url, None, {})
                return response.read()

        return self._insist(once)

    def get_into(self, url: str, file: IO[bytes]) -> str:
        """Streams an object into an empty file, going on where a connection broke; its sha256."""
        download = _Download(file)

        def once() -> str:
            with closing(self._connection(urlsplit(url))) as connection:
                headers = {"Range": f"bytes={download.size}-"} if download.size else {}
                response = _answer(connection, "GET", url, None, headers)
                if response.status != http.client.PARTIAL_CONTENT:
                    download.begin()
                expected = response.length
                before = download.size
                while chunk := response.read(_CHUNK):
                    download.add(chunk)
                if expected is not None and download.size - before != expected:
                    raise ConnectionError("the connection broke in the middle of an object")
            return download.sha256

        return self._insist(once)

    def _send(self, url: str, body: bytes | IO[bytes], size: int) -> None:
        with closing(self._connection(urlsplit(url))) as connection:
            _answer(connection, "PUT", url, body, {"Content-Length": str(size)}).read()

    def _connection(self, parts: SplitResult) -> http.client.HTTPConnection:
        kind = (
            http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        )
        return kind(parts.hostname or "", parts.port, timeout=self.timeout, blocksize=_CHUNK)

    def _insist(self, once: Callable[[], T]) -> T:
        pause, failed_at = 0.2, None
        while True:
            try:
                return once()
            except (Refusal, FileNotFoundError, PermissionError):  # the latter two: local files
                raise
            except (_Passing, OSError, http.client.HTTPException) as error:
                now = self.clock()
                failed_at = now if failed_at is None else failed_at
                if now + pause - failed_at > self.patience:
                    if isinstance(error, OSError):
                        raise
                    raise ConnectionError(f"no answer that is HTTP: {error!r}") from error
            self.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(pause * 2, _LONGEST_PAUSE)


class _Download:
    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self.size = 0

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def begin(self) -> None:
        self._file.seek(0)
        self._file.truncate()
        self._digest = hashlib.sha256()
        self.size = 0

    def add(self, chunk: bytes) -> None:
        try:
            self._file.write(chunk)
        except OSError as error:
            raise DiskError(str(error)) from error
        self._digest.update(chunk)
        self.size += len(chunk)


def _answer(
    connection: http.client.HTTPConnection,
    method: str,
    url: str,
    body: bytes | IO[bytes] | None,
    headers: dict[str, str],
) -> http.client.HTTPResponse:
    parts = urlsplit(url)
    target = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
    try:
        connection.request(method, target, body=body, headers=headers)
    except (BrokenPipeError, ConnectionResetError):
        # A store that refuses an upload need not read it: its reason may be there already.
        response = connection.getresponse()
    else:
        response = connection.getresponse()
    if 200 <= response.status < 300:
        return response
    text = _short(response.read(4096).decode("utf-8", "replace")) or response.reason
    if response.status in _PASSING:
        raise _Passing(f"the store answered {response.status}: {text}")
    raise Refusal(response.status, text)


def _short(body: str) -> str:
    """S3 says in XML what is wrong; the message in it is for people."""
    for name in ("Message", "Code"):
        start, end = body.find(f"<{name}>"), body.find(f"</{name}>")
        if 0 <= start < end:
            return body[start + len(name) + 2 : end]
    return " ".join(body.split())[:200]
