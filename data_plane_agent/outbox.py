"""What the ledger has not confirmed yet: an append-only file, one write and one fdatasync a batch.

Filled by the engine, which never waits for it; read by the commit loop, which sees an event only
once it is on disk; survives a crash at any byte. A disk that is full makes it say so and try
again; nothing is lost meanwhile but room.
"""

import asyncio
import logging
import os
import struct
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from whimbrel.errors import Refused

log = logging.getLogger(__name__)

GROUP_SECONDS, GROUP_EVENTS = 0.004, 256
"""A batch is written when it is this old or this large. Longer: later commits; shorter: more
fdatasyncs."""
RETRY_SECONDS = 1.0
COMPACT_BYTES = 8 * 1024 * 1024
"""Settled bytes that are worth a rewrite of the file."""

MAGIC = b"WHOB0001"
HEADER = struct.Struct("<8sQ")
RECORD = struct.Struct("<II")
FIXED = struct.Struct("<qBH")


@dataclass(frozen=True, slots=True)
class Entry:
    """One event. `data` is its wire form; `last`: nothing of this execution and epoch follows.
    `forget`: no event, but a mark in the file: what stands before it of this execution and epoch is
    not to be said any more."""

    execution: str
    epoch: int
    data: bytes
    last: bool = False
    forget: bool = False


def encode(entry: Entry) -> bytes:
    name = entry.execution.encode()
    flags = entry.last | entry.forget << 1
    body = FIXED.pack(entry.epoch, flags, len(name)) + name + entry.data
    return RECORD.pack(len(body), zlib.crc32(body)) + body


def decode(text: bytes) -> tuple[list[Entry], int]:
    """The whole entries at the beginning of `text`, and how many bytes they take; what is torn is
    left out."""
    entries: list[Entry] = []
    at = 0
    while at + RECORD.size <= len(text):
        size, crc = RECORD.unpack_from(text, at)
        body = text[at + RECORD.size : at + RECORD.size + size]
        if size < FIXED.size or len(body) < size or zlib.crc32(body) != crc:
            break
        epoch, flags, length = FIXED.unpack_from(body)
        name = body[FIXED.size : FIXED.size + length].decode()
        data = body[FIXED.size + length :]
        entries.append(Entry(name, epoch, data, last=bool(flags & 1), forget=bool(flags & 2)))
        at += RECORD.size + size
    return entries, at


class Outbox:
    """Entries in order. Numbers count from 1 in each session: `first` is the number of the oldest
    one waiting.

    On disk an entry's sequence number is the header's base plus its place in the file; the cursor
    file says below which all are settled. It is not synced: a stale one only makes entries be
    offered once more, which is harmless.
    """

    def __init__(self, folder: Path, *, on_health: Callable[[bool], None] | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / "outbox"
        self._on_health = on_health
        self._buffer: list[Entry] = []
        self._writing: list[tuple[int, Entry]] = []
        self._marks: list[Entry] = []
        self._taken: list[Entry] = []
        self._then: list[Callable[[], None]] = []
        self._durable: deque[tuple[int, Entry]] = deque()
        self._settled_bytes = 0
        self._group = asyncio.Event()
        self._filled = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="outbox")
        self.first = 1
        self.healthy = True
        self._cursor = os.open(folder / "outbox.cursor", os.O_RDWR | os.O_CREAT, 0o600)
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        self._load()

    @property
    def waiting(self) -> int:
        return len(self._durable) + len(self._writing) + len(self._buffer)

    def pending(self) -> list[Entry]:
        """Everything unsettled, written or not."""
        written = (entry for _, entry in (*self._durable, *self._writing))
        return [*written, *self._buffer]

    def put(self, entries: Iterable[Entry], *, then: Callable[[], None] | None = None) -> None:
        """`then` is called once they, and all before them, are on disk."""
        self._buffer.extend(entries)
        if then is not None:
            self._then.append(then)
        if len(self._buffer) >= GROUP_EVENTS:
            self._ring()
        elif (self._buffer or self._then) and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(GROUP_SECONDS, self._ring)

    async def run(self) -> None:
        """Write batches for ever; what is left at cancellation is written before it ends."""
        try:
            while True:
                await self._group.wait()
                self._group.clear()
                await self._flush()
        finally:
            self.close()

    def close(self) -> None:
        self._thread.shutdown(wait=True)
        # Cancelled before its turn in the thread came, the last batch is not written yet.
        if left := [*self._taken, *self._marks, *self._buffer]:
            self._append(left)
        os.close(self._file)
        os.close(self._cursor)

    async def batch(self, limit: int, *, limit_bytes: int) -> list[Entry]:
        """The oldest entries that are on disk, as soon as there are any; the same again until
        settled."""
        while not self._durable:
            self._filled.clear()
            await self._filled.wait()
        batch: list[Entry] = []
        size = 0
        for _, entry in islice(self._durable, limit):
            size += len(entry.data)
            if batch and size > limit_bytes:
                break
            batch.append(entry)
        return batch

    def settle(self, cursor: int, *, forget: Set[tuple[str, int]] = frozenset()) -> int:
        """The ledger has everything up to number `cursor`. `forget`: (execution, epoch) of which
        nothing that still waits is to be said; answers how many events that were.

        A crash must not lose the mark and keep the cursor: what was made from a refused event would
        be said without it. So the cursor is saved when no mark is on its way."""
        last = None
        while self.first <= cursor and self._durable:
            last, entry = self._durable.popleft()
            self._settled_bytes += len(entry.data)
            self.first += 1
        waiting = self.waiting
        if forget:
            self._keep(lambda entry: (entry.execution, entry.epoch) not in forget)
        if waiting > self.waiting:
            self._marks.extend(Entry(*one, b"", forget=True) for one in sorted(forget))
            self._ring()
        marking = self._marks or any(entry.forget for entry in self._taken)
        if last is not None and not marking:
            body = struct.pack("<Q", last + 1)
            os.pwrite(self._cursor, body + struct.pack("<I", zlib.crc32(body)), 0)
        return waiting - self.waiting

    def renumber(self, keep: Callable[[Entry], bool]) -> int:
        """A new session: what is kept counts from 1 again. Answers how many were dropped (work for
        nothing).

        Dropped ones stay in the file until it is rewritten; after a restart they are dropped once
        more."""
        before = self.waiting
        self._keep(keep)
        self.first = 1
        return before - self.waiting

    def _keep(self, keep: Callable[[Entry], bool]) -> None:
        self._durable = deque(one for one in self._durable if keep(one[1]))
        self._writing = [one for one in self._writing if keep(one[1])]
        self._buffer = [entry for entry in self._buffer if keep(entry)]

    def _ring(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._group.set()

    async def _flush(self) -> None:
        while self._marks or self._buffer or self._then:
            marks, taken, then = self._marks, self._buffer, self._then
            self._marks, self._buffer, self._then = [], [], []
            self._writing = list(enumerate(taken))
            # Marks first: what of these runs was put later has been said after them.
            self._taken = [*marks, *taken]
            try:
                if self._settled_bytes > COMPACT_BYTES:
                    await self._compact()
                if self._taken:
                    await self._in_thread(self._append, self._taken)
            except OSError as error:
                self._taken = []
                self._marks[:0] = marks
                self._then[:0] = then
                self._buffer[:0] = [entry for _, entry in self._writing]
                self._writing = []
                self._set_health(healthy=False, why=str(error))
                await asyncio.sleep(RETRY_SECONDS)
                continue
            self._set_health(healthy=True)
            base = self._next - len(taken)
            self._durable.extend((base + place, entry) for place, entry in self._writing)
            self._writing = []
            self._filled.set()
            for call in then:
                call()

    async def _in_thread(self, call: Callable[[list[Entry]], None], entries: list[Entry]) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, call, entries)

    async def _compact(self) -> None:
        """Rewrite the file with what is unsettled; every entry gets a new sequence number, above
        all old ones."""
        old = list(self._durable)
        base = self._next
        await self._in_thread(self._rewrite, [entry for _, entry in old])
        renamed = {seq: base + place for place, (seq, _) in enumerate(old)}
        self._durable = deque((renamed[seq], entry) for seq, entry in self._durable)
        self._settled_bytes = 0

    def _set_health(self, *, healthy: bool, why: str = "") -> None:
        if healthy == self.healthy:
            return
        self.healthy = healthy
        if healthy:
            log.info("the outbox can be written again")
        else:
            log.error("the outbox can't be written, so no new work is started: %s", why)
        if self._on_health is not None:
            self._on_health(healthy)

    def _append(self, entries: list[Entry]) -> None:
        """One write, one fdatasync. After an error the file ends where it ended before."""
        text = b"".join(map(encode, entries))
        try:
            _write(self._file, text, at=self._size)
            os.fdatasync(self._file)
        except OSError:
            os.ftruncate(self._file, self._size)
            raise
        self._size += len(text)
        self._next += len(entries)
        self._taken = []

    def _rewrite(self, entries: list[Entry]) -> None:
        new = self._path.with_suffix(".new")
        file = os.open(new, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            text = HEADER.pack(MAGIC, self._next) + b"".join(map(encode, entries))
            _write(file, text, at=0)
            os.fsync(file)
            new.replace(self._path)
        except OSError:
            os.close(file)
            raise
        os.close(self._file)
        self._file, self._size, self._next = file, len(text), self._next + len(entries)

    def _load(self) -> None:
        settled = _read_cursor(self._cursor)
        text = self._path.read_bytes()
        if len(text) < HEADER.size:
            self._size, self._next = 0, settled
            self._rewrite([])
            return
        magic, base = HEADER.unpack_from(text)
        if magic != MAGIC:
            raise Refused(
                f"{self._path} is not an outbox that this version can read",
                remedy="start the version of the agent that wrote it, or give another data_dir",
            )
        entries, good = decode(text[HEADER.size :])
        self._size, self._next = HEADER.size + good, base + len(entries)
        os.ftruncate(self._file, self._size)
        if settled > self._next:
            self._next = settled
            self._rewrite([])
            return
        skip = max(settled - base, 0)
        self._settled_bytes = sum(len(entry.data) for entry in entries[:skip])
        self._durable.extend(_standing(list(enumerate(entries, base))[skip:]))


def _standing(numbered: Sequence[tuple[int, Entry]]) -> list[tuple[int, Entry]]:
    """Without the marks, and without what they say is not to be said."""
    marks = {(one.execution, one.epoch): seq for seq, one in numbered if one.forget}
    return [
        (seq, one)
        for seq, one in numbered
        if not one.forget and seq > marks.get((one.execution, one.epoch), -1)
    ]


def _write(file: int, text: bytes, *, at: int) -> None:
    done = 0
    while done < len(text):
        done += os.pwrite(file, text[done:], at + done)


def _read_cursor(file: int) -> int:
    text = os.pread(file, 12, 0)
    if len(text) != 12 or text[8:] != struct.pack("<I", zlib.crc32(text[:8])):
        return 0
    return int(struct.unpack("<Q", text[:8])[0])
