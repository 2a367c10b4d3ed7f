"""How agent and worker talk: JSON messages behind a 4-byte length, and one page of memory both can
see.

Used by `runtime_worker.py` inside the task process and by `data_plane_agent/processes/workers.py`
at the other end of the socket. The page says what a worker runs *now*, which its socket can't while
user code has the interpreter.
"""

import json
import mmap
import os
import socket
import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROTOCOL = 2
"""Also of the page: a worker of an older one would run exclusive work without its timer."""
_LENGTH = struct.Struct(">I")
_UNIX_PATH_LIMIT = 100

Message = dict[str, Any]


def encode(message: Message | list[Message]) -> bytes:
    body = json.dumps(message, separators=(",", ":"), ensure_ascii=False).encode(
        "utf-8", "surrogatepass"
    )
    return _LENGTH.pack(len(body)) + body


class Decoder:
    """Bytes in, whole messages out; a frame is one message or a list of them."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Message]:
        self._buffer += data
        start, end = 0, len(self._buffer)
        while end - start >= 4:
            (length,) = _LENGTH.unpack_from(self._buffer, start)
            if end - start - 4 < length:
                break
            frame = json.loads(self._buffer[start + 4 : start + 4 + length])
            start += 4 + length
            if isinstance(frame, list):
                yield from frame
            else:
                yield frame
        del self._buffer[:start]


def socket_path(path: Path) -> str:
    """A path the kernel takes for a Unix socket (at most 107 bytes): long folders go through a
    descriptor."""
    if len(os.fsencode(path)) <= _UNIX_PATH_LIMIT:
        return str(path)
    folder = os.open(
        path.parent, os.O_PATH | os.O_DIRECTORY
    )  # kept open: the path lives through it
    return f"/proc/self/fd/{folder}/{path.name}"


def connect(path: str) -> socket.socket | None:
    """The agent's socket, or None when nobody listens there now."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.connect(path)
    except OSError:
        connection.close()
        return None
    return connection


NEVER = (1 << 63) - 1
_PAGE = 16384
_RUN = struct.Struct("<QQQQQ")  # seq, running, started_ns, stdout offset, stderr offset
_REVOKED = struct.Struct("<Q")
_QUIESCED = struct.Struct("<Q")  # seq
_GRANT = struct.Struct("<QQ")  # seq, until_ns
_CHECK = struct.Struct("<I")
_REVOKED_AT, _QUIESCED_AT, _GRANT_AT, _META_AT = 64, 72, 80, 128


@dataclass(frozen=True, slots=True)
class Now:
    """What a worker does at this moment: task number `seq`, and whether it still runs."""

    seq: int
    running: bool
    started_ns: int
    stdout_at: int
    stderr_at: int


class StatePage:
    """One file, mapped by the worker and by its agent; it outlives both.

    Taking back a queued task needs no answer from a worker that is busy: the agent lowers
    `revoked_from` and then looks at what has begun; the worker announces what it begins and then
    looks at `revoked_from`. Whoever comes second sees the other, so a task never starts at a worker
    it was taken from (Dekker's rule: write first, then look).
    """

    def __init__(self, path: Path, *, create: bool = False) -> None:
        flags = os.O_RDWR | (os.O_CREAT if create else 0)
        descriptor = os.open(path, flags, 0o600)
        try:
            if create:
                os.ftruncate(descriptor, _PAGE)
            self._map = mmap.mmap(descriptor, _PAGE)
        finally:
            os.close(descriptor)
        if create:
            _REVOKED.pack_into(self._map, _REVOKED_AT, NEVER)

    def begin(self, now: Now, meta: bytes) -> bool:
        """Worker: announce a task; False when it has been taken back (and is then not
        announced)."""
        if len(meta) <= _PAGE - _META_AT - 4:
            struct.pack_into(f"<I{len(meta)}s", self._map, _META_AT, len(meta), meta)
        _RUN.pack_into(self._map, 0, now.seq, 1, now.started_ns, now.stdout_at, now.stderr_at)
        if now.seq >= self.revoked_from:
            self.end(now)
            return False
        return True

    def end(self, now: Now) -> None:
        _RUN.pack_into(self._map, 0, now.seq, 0, now.started_ns, now.stdout_at, now.stderr_at)

    @property
    def now(self) -> Now:
        seq, running, started, out, err = _RUN.unpack_from(self._map, 0)
        return Now(seq, bool(running), started, out, err)

    @property
    def meta(self) -> Message:
        """What the worker said about the task it began last."""
        (length,) = struct.unpack_from("<I", self._map, _META_AT)
        text = self._map[_META_AT + 4 : _META_AT + 4 + length]
        with suppress(ValueError):
            return json.loads(text)
        return {}

    @property
    def revoked_from(self) -> int:
        return _REVOKED.unpack_from(self._map, _REVOKED_AT)[0]

    @revoked_from.setter
    def revoked_from(self, seq: int) -> None:
        _REVOKED.pack_into(self._map, _REVOKED_AT, seq)

    def quiesce(self, seq: int) -> None:
        """Agent: ask this task to save a checkpoint and end."""
        _QUIESCED.pack_into(self._map, _QUIESCED_AT, seq)

    def quiesced(self, seq: int) -> bool:
        return _QUIESCED.unpack_from(self._map, _QUIESCED_AT)[0] == seq

    def grant(self, seq: int, until_ns: int) -> None:
        """Agent: this task may run until then (CLOCK_BOOTTIME), if it is exclusive."""
        body = _GRANT.pack(seq, until_ns)
        self._map[_GRANT_AT : _GRANT_AT + 20] = body + _CHECK.pack(zlib.crc32(body))

    def granted(self, seq: int) -> int:
        """0 when there is none for this very task, or it is being written at this moment: a
        deadline of half an old and half a new number would be nobody's."""
        text = self._map[_GRANT_AT : _GRANT_AT + 20]
        whose, until_ns = _GRANT.unpack_from(text)
        whole = _CHECK.unpack_from(text, 16)[0] == zlib.crc32(text[:16])
        return until_ns if whole and whose == seq else 0

    def close(self) -> None:
        self._map.close()


def start_time(pid: int) -> int:
    """Kernel ticks at which the process began, 0 if it is gone: a process id alone may name another
    by now."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return 0
    fields = stat[stat.rindex(b")") + 2 :].split()
    return 0 if fields[0] in (b"Z", b"X") else int(fields[19])
