"""Fakes at the agent's seams: a launcher that runs plain functions, a ledger that keeps its rules.

Used by the tests of the engine; neither sleeps, both can be told to be away.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

from whimbrel.codec import workflow_to_wire
from whimbrel.errors import Unreachable, WhimbrelError
from whimbrel.spec import (
    Failure,
    Mode,
    Outputs,
    Resources,
    Want,
    WorkflowSpec,
    canonical,
    digest,
    sha256,
)

from data_plane_agent import codec
from data_plane_agent import messages as m
from data_plane_agent.launcher import (
    Attempt,
    AttemptEvent,
    AttemptKey,
    Broke,
    Capacity,
    Finished,
    Found,
    Started,
)

Behaviour = Callable[[Attempt], Mapping[str, Any] | Failure | None]
"""What an attempt does: outputs, a failure, or None to go on until `finish` or `cancel`."""


class FakeLauncher:
    def __init__(self, behave: Behaviour, *, found: Mapping[AttemptKey, str] | None = None) -> None:
        self.behave = behave
        self.found = found or {}
        self.started: list[Attempt] = []
        self.cancelled: list[AttemptKey] = []
        self.taken_keys: list[AttemptKey] = []
        self.quiesced: list[AttemptKey] = []
        self.killed: list[AttemptKey] = []
        self.adopted: list[AttemptKey] = []
        self.unseen = False
        """No death can be told of: `kill` answers Unreachable."""
        self.asked_to_kill = 0
        self.events: asyncio.Queue[list[AttemptEvent]] = asyncio.Queue()

    async def start(self, attempts: Sequence[Attempt]) -> None:
        batch: list[AttemptEvent] = []
        for attempt in attempts:
            self.started.append(attempt)
            batch.append(Started(attempt.key, 1))
            match self.behave(attempt):
                case None:
                    pass
                case Failure() as failure:
                    batch.append(Broke(attempt.key, failure, 1, 2))
                case outputs:
                    batch.append(finished(attempt.key, outputs, attempt.input_digest))
        self.events.put_nowait(batch)

    async def watch(self) -> AsyncIterator[Sequence[AttemptEvent]]:
        yield [Found(self.found)]
        while True:
            yield await self.events.get()

    def taken(self, keys: Sequence[AttemptKey]) -> None:
        self.taken_keys.extend(keys)

    async def cancel(self, keys: Sequence[AttemptKey]) -> None:
        self.cancelled.extend(keys)

    async def quiesce(self, keys: Sequence[AttemptKey]) -> None:
        self.quiesced.extend(keys)

    async def kill(self, keys: Sequence[AttemptKey]) -> None:
        self.asked_to_kill += 1
        if self.unseen:
            raise Unreachable("their machine is not seen")
        self.killed.extend(keys)

    async def adopt(self, keys: Sequence[AttemptKey]) -> None:
        self.adopted.extend(keys)

    def capacity(self) -> Capacity:
        return Capacity(Resources(cpu=1), Resources(cpu=1), 0, 0)


def finished(key: AttemptKey, outputs: Mapping[str, Any], input_digest: str) -> Finished:
    text = canonical(outputs)
    return Finished(key, Outputs(text, sha256(text)), input_digest, 1, 2)


class FakeLedger:
    """One cluster's view: rows by execution, each with its epoch, outputs and end."""

    def __init__(self) -> None:
        self.specs: dict[str, bytes] = {}
        self.rows: dict[str, dict[str, Any]] = {}
        self.cursors: dict[int, int] = {}
        self.away = False
        self.lose_answers = 0
        self.batches: list[tuple[int, int, list[m.Event]]] = []
        self.claims: list[tuple[int, list[m.Wish]]] = []
        self.changed = asyncio.Event()
        self.poison: Callable[[str, m.Event], bool] = lambda execution, event: False
        self.tries: dict[str, tuple[m.NodeTries, ...]] = {}
        self.modes: dict[str, Mode] = {}
        self.quiescing: set[str] = set()

    def launch(self, execution: str, spec: WorkflowSpec, *, epoch: int = 1, **inputs: Any) -> None:
        key = digest(spec)
        self.specs[key] = workflow_to_wire(spec).SerializeToString()
        self.rows[execution] = {
            "epoch": epoch,
            "spec": key,
            "inputs": inputs,
            "nodes": [node.id for node in spec.nodes],
            "outputs": {},
            "end": None,
            "log": [],
        }

    async def claim(
        self, wishes: Sequence[m.Wish], *, cluster_epoch: int
    ) -> list[m.Claimed | m.NotClaimed]:
        self._here()
        self.claims.append((cluster_epoch, list(wishes)))
        return [self._claim(wish) for wish in wishes]

    def _claim(self, wish: m.Wish) -> m.Claimed | m.NotClaimed:
        row = self.rows.get(wish.execution)
        if row is None or row["epoch"] != wish.epoch or row["end"] is not None:
            current = 0 if row is None else row["epoch"]
            return m.NotClaimed(wish.execution, wish.epoch, current, current == 0)
        return m.Claimed(
            wish.execution,
            wish.epoch,
            row["spec"],
            json.dumps(row["inputs"]),
            outputs=tuple(row["outputs"].values()),
            mode=self.modes.get(wish.execution, Mode.IDEMPOTENT),
            tries=self.tries.get(wish.execution, ()),
            want=Want.QUIESCE if wish.execution in self.quiescing else Want.RUN,
        )

    async def commit(self, events: Sequence[bytes], *, first: int, cluster_epoch: int) -> m.Receipt:
        self._here()
        decoded = [codec.decode(event) for event in events]
        heads = [codec.address(event) for event in events]
        for event, (execution, _) in zip(decoded, heads, strict=True):
            if event is not None and self.poison(execution, event):
                raise WhimbrelError("the ledger can't take it")
        cursor = self.cursors.get(cluster_epoch, 0)
        if first > cursor + 1:
            return m.Receipt(cursor, gap=cursor + 1)
        objections: list[m.Objection] = []
        refused: set[str] = set()
        self.batches.append((cluster_epoch, first, [one for one in decoded if one is not None]))
        for index, (event, (execution, epoch)) in enumerate(zip(decoded, heads, strict=True)):
            if event is None or first + index <= cursor:
                continue
            if execution in refused and not isinstance(event, m.AttemptRuns | m.AttemptFailed):
                objections.append(m.Objection(index, m.Verdict.INCOMPLETE, epoch))
                continue
            objection = self._take(index, execution, epoch, event)
            if objection is not None:
                objections.append(objection)
                if objection.verdict in (m.Verdict.CONFLICT, m.Verdict.INCOMPLETE):
                    refused.add(execution)
        self.cursors[cluster_epoch] = max(cursor, first + len(events) - 1)
        self.changed.set()
        if self.lose_answers:
            self.lose_answers -= 1
            raise Unreachable("the answer was lost")
        return m.Receipt(self.cursors[cluster_epoch], objections=tuple(objections))

    def _take(self, index: int, execution: str, epoch: int, event: m.Event) -> m.Objection | None:
        row = self.rows.get(execution)
        if row is None or row["epoch"] != epoch:
            return m.Objection(index, m.Verdict.FENCED, 0 if row is None else row["epoch"])
        match event:
            case m.NodeOutput():
                kept = row["outputs"].setdefault(event.node, event)
                if kept.outputs.digest != event.outputs.digest:
                    return m.Objection(index, m.Verdict.CONFLICT, epoch, kept)
                if kept is not event:
                    return m.Objection(index, m.Verdict.ALREADY_COMMITTED, epoch)
            case m.Succeeded() if set(row["outputs"]) != set(row["nodes"]):
                return m.Objection(index, m.Verdict.INCOMPLETE, epoch)
            case m.Succeeded() | m.Failed() | m.Released() | m.Unreachable():
                row["end"] = event
                row["epoch"] += 1
            case _:
                pass
        row["log"].append(event)
        return None

    async def fetch_spec(self, digest: str) -> bytes:
        self._here()
        return self.specs[digest]

    def _here(self) -> None:
        if self.away:
            raise Unreachable("the ledger is away")
