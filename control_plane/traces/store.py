"""Spans in a SQLite file of their own: losing them loses no run, and writing them delays none.

Fed by the collector (`rpc.py`) through a queue, written in batches by `run`; read by `execution
trace`. Bounded: the oldest go first.
"""

import asyncio
import json
import sqlite3
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

QUEUE = 100_000
"""Spans waiting to be written; more are dropped, a trace is no fact."""

KEPT = 1_000_000
"""Spans in the file (about 400 MB)."""

BATCH_SECONDS = 0.1
PRUNE_EVERY = 100


@dataclass(frozen=True, slots=True)
class Span:
    trace_id: str
    span_id: str
    parent_id: str
    name: str
    service: str
    start_ns: int
    end_ns: int
    error: bool = False
    attributes: tuple[tuple[str, str], ...] = ()
    links: tuple[str, ...] = ()


SCHEMA = """
CREATE TABLE IF NOT EXISTS span (
  id INTEGER PRIMARY KEY, trace_id TEXT, span_id TEXT, parent_id TEXT, name TEXT, service TEXT,
  start_ns INTEGER, end_ns INTEGER, error INTEGER, attributes TEXT, links TEXT
);
CREATE UNIQUE INDEX IF NOT EXISTS span_once ON span (trace_id, span_id);
"""
COLUMNS = "trace_id, span_id, parent_id, name, service, start_ns, end_ns, error, attributes, links"


class Traces:
    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=NORMAL")
        self._connection.executescript(SCHEMA)
        self._waiting: deque[Span] = deque()
        self._writing = asyncio.Lock()
        self._batches = 0
        self.dropped = 0

    def take(self, spans: Sequence[Span]) -> None:
        room = max(QUEUE - len(self._waiting), 0)
        self._waiting.extend(spans[:room])
        self.dropped += max(len(spans) - room, 0)

    async def run(self) -> None:
        while True:
            await asyncio.sleep(BATCH_SECONDS)
            await self.flush()

    async def flush(self) -> None:
        async with self._writing:
            if self._waiting:
                # Exporters add from their own threads: take what is there, never swap the queue.
                batch = [self._waiting.popleft() for _ in range(len(self._waiting))]
                await asyncio.to_thread(self._write, batch)

    def _write(self, batch: Sequence[Span]) -> None:
        self._connection.execute("BEGIN")
        self._connection.executemany(
            f"INSERT OR IGNORE INTO span ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (
                    span.trace_id, span.span_id, span.parent_id, span.name, span.service,
                    span.start_ns, span.end_ns, span.error, json.dumps(span.attributes),
                    json.dumps(span.links),
                )
                for span in batch
            ],
        )  # fmt: skip
        self._batches += 1
        if self._batches % PRUNE_EVERY == 0:
            self._connection.execute(
                "DELETE FROM span WHERE id <= (SELECT max(id) FROM span) - ?", (KEPT,)
            )
        self._connection.execute("COMMIT")

    async def of(self, trace_id: str) -> list[Span]:
        """Every span of a trace by its start, also those that still wait to be written."""
        await self.flush()
        async with self._writing:
            return await asyncio.to_thread(self._read, trace_id)

    def _read(self, trace_id: str) -> list[Span]:
        found = self._connection.execute(
            f"SELECT {COLUMNS} FROM span WHERE trace_id = ? ORDER BY start_ns, id", (trace_id,)
        )
        return [
            Span(
                *row[:7],
                error=bool(row[7]),
                attributes=tuple((key, value) for key, value in json.loads(row[8])),
                links=tuple(json.loads(row[9])),
            )
            for row in found
        ]

    async def close(self) -> None:
        await self.flush()
        self._connection.close()
