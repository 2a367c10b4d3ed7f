"""Drives every execution this agent holds: claims it, runs its graph, keeps the ledger informed.

Called by the session (assignments, a new session) and by the launcher's batches; hands attempts to
the launcher and events to the outbox. Nothing starts before its Claim; nothing waits for a commit;
no task of its own per node.
"""

import asyncio
import json
import logging
import random
from collections import OrderedDict, deque
from collections.abc import Awaitable, Iterable, Sequence
from typing import Any, Protocol

from data_plane_agent import codec, dag
from data_plane_agent import messages as m
from data_plane_agent.guard import Guard
from data_plane_agent.launcher import (
    Attempt,
    AttemptEvent,
    AttemptKey,
    Broke,
    Finished,
    Found,
    Launcher,
    Logs,
)
from data_plane_agent.outbox import Outbox
from data_plane_agent.run import Run, Work
from data_plane_agent.spans import Spans
from data_plane_agent.specs import Specs
from whimbrel.errors import Unreachable, WhimbrelError
from whimbrel.spec import Artifact, Failure, Mode, Owner, Want, sha256

log = logging.getLogger(__name__)

CLAIMS_AT_ONCE = 200
TELL_RUNNING_SECONDS = 0.05
"""An attempt is reported RUNNING when it is older. Shorter doubles the events of fast tasks;
longer hides slow ones."""
LOGS_REMEMBERED = 50_000


class Store(Protocol):
    async def get(self, uri: str) -> bytes: ...


class Engine:
    def __init__(
        self,
        *,
        launcher: Launcher,
        ledger: m.Ledger,
        outbox: Outbox,
        store: Store,
        specs: Specs,
        guard: Guard,
        spans: Spans,
        max_executions: int,
    ) -> None:
        self._launcher = launcher
        self._ledger = ledger
        self._outbox = outbox
        self._store = store
        self._specs = specs
        self._guard = guard
        self._spans = spans
        self._max_executions = max_executions
        self.runs: dict[str, Run] = {}
        self.logs: OrderedDict[AttemptKey, Logs] = OrderedDict()
        self.progress = 0
        self.wasted = 0
        self.cluster_epoch = 0
        self.reconciled = asyncio.Event()
        self.can_claim = asyncio.Event()
        self._wanted: dict[str, int] = {}
        self._refused: dict[str, int] = {}
        self._again: dict[str, bool] = {}
        self._found: dict[AttemptKey, str] = {}
        self._found_known = asyncio.Event()
        self._strays: dict[str, list[AttemptEvent]] = {}
        self._held_back: list[Attempt] = []
        self._young: deque[tuple[float, AttemptKey]] = deque()
        self._young_some = asyncio.Event()
        self._digest = 0
        self._side: set[asyncio.Task[None]] = set()

    # --- what the session tells and asks ---

    def joined(self, cluster_epoch: int, *, resumed: bool) -> None:
        """A session: a new one has everything held claimed before anything else."""
        if not resumed or cluster_epoch != self.cluster_epoch:
            self.cluster_epoch = cluster_epoch
            self._refused.clear()
            self.reconciled.clear()
        self.can_claim.set()

    def assigned(self, heard: m.All | m.Changed | m.Removed) -> None:
        work = Work()
        match heard:
            case m.Removed(assignments):
                for one in assignments:
                    self._unwanted(one.execution, one.epoch, work)
            case m.All(assignments) | m.Changed(assignments):
                for one in assignments:
                    if one.want is Want.CANCEL:
                        self._unwanted(one.execution, one.epoch, work)
                    elif one.epoch >= self._wanted.get(one.execution, 0):
                        self._wanted[one.execution] = one.epoch
        if isinstance(heard, m.All):
            named = {one.execution for one in heard.assignments}
            for execution in list(self._wanted):
                if execution not in named:
                    del self._wanted[execution]
            # Silence kills nothing (etcd may have been wiped): ask the ledger whether they are
            # still ours.
            self._again.update((x, False) for x in self.runs if x not in named)
        self.can_claim.set()
        self._do_soon(work)

    def held(self) -> tuple[m.Wish, ...]:
        return tuple(m.Wish(run.execution, run.epoch) for run in tuple(self.runs.values()))

    @property
    def held_digest(self) -> str:
        """XOR of sha256("{execution}@{epoch}") over what is held: free of order, kept up to date
        in one step."""
        return f"{self._digest:064x}"

    @property
    def work_pending(self) -> bool:
        return any(run.trials for run in tuple(self.runs.values()))

    def load(self) -> m.Load:
        room = self._max_executions if self._outbox.healthy else 0
        return m.Load(self._launcher.capacity(), room, len(self.runs))

    def newest(self, execution: str, node: str) -> AttemptKey | None:
        """The newest attempt of a node known here, running or over."""
        run = self.runs.get(execution)
        if run is not None and node in run.trials:
            return run.trials[node].key
        keys = [key for key in self.logs if key.execution == execution and key.node == node]
        return max(keys, key=lambda key: (key.epoch, key.attempt), default=None)

    # --- loops ---

    async def run(self) -> None:
        """Until cancelled. Whatever ends a loop ends the engine, and with it the agent: it is
        restarted."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._outbox.run(), name="outbox")
            group.create_task(self._watch(), name="watch")
            group.create_task(self._claim(), name="claim")
            group.create_task(self._commit(), name="commit")
            group.create_task(self._tell_running(), name="tell running")
            group.create_task(self._tick(), name="tick")

    async def _tick(self) -> None:
        """Progress the router can see even when there is nothing to decide: the loop is alive."""
        while True:
            await asyncio.sleep(0.25)
            self.progress += 1
            if self._held_back and self._outbox.healthy:
                starts, self._held_back = self._held_back, []
                await self._start(starts)

    async def _watch(self) -> None:
        async for batch in self._launcher.watch():
            work = Work()
            for event in batch:
                self._hear(event, work)
            await self._do(work)
        raise RuntimeError("the launcher stopped telling what happens")

    def _hear(
        self, event: AttemptEvent, work: Work, *, document: dag.Outputs | None = None
    ) -> None:
        if isinstance(event, Found):
            self._found.update(event.running)
            self._found_known.set()
            self.can_claim.set()
            return
        run = self.runs.get(event.key.execution)
        if run is None or not run.waits_for(event.key):
            if event.key in self._found:
                self._strays.setdefault(event.key.execution, []).append(event)
            return
        if isinstance(event, Finished) and document is None and event.outputs.offloaded:
            self._aside(self._hear_offloaded(event, event.outputs.offloaded))
            return
        run.heard(event, work, document=document)

    async def _hear_offloaded(self, event: Finished, artifact: Artifact) -> None:
        work = Work()
        document = await self._document(artifact)
        if document is None:
            message = f"the outputs it wrote to {artifact.uri} can't be read"
            failure = Failure(Owner.SYSTEM, "store_unreadable", message, event.key.node)
            broke = Broke(event.key, failure, event.started_ns, event.ended_ns, event.logs)
            self._hear(broke, work)
        else:
            self._hear(event, work, document=document)
        await self._do(work)

    async def _do(self, work: Work) -> None:
        self.progress += work.decisions
        for key, logs in work.logs:
            self.logs[key] = logs
        while len(self.logs) > LOGS_REMEMBERED:
            self.logs.popitem(last=False)
        if work.entries:
            self._outbox.put(work.entries)
        if work.started:
            now = asyncio.get_running_loop().time()
            self._young.extend((now, key) for key in work.started)
            self._young_some.set()
        if work.cancels:
            await self._launcher.cancel(work.cancels)
        for pause, attempt in work.later:
            asyncio.get_running_loop().call_later(pause, self._start_soon, attempt)
        if work.starts:
            await self._start(work.starts)

    async def _start(self, starts: Sequence[Attempt]) -> None:
        ours = [one for one in starts if self._due(one.key)]
        if not self._outbox.healthy:
            self._held_back.extend(ours)
        elif ours:
            await self._launcher.start(ours)

    def _due(self, key: AttemptKey) -> bool:
        run = self.runs.get(key.execution)
        return run is not None and run.waits_for(key)

    def _start_soon(self, attempt: Attempt) -> None:
        self._aside(self._start([attempt]))

    def _do_soon(self, work: Work) -> None:
        if work.cancels or work.entries or work.starts:
            self._aside(self._do(work))

    def _aside(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._side.add(task)
        task.add_done_callback(self._aside_over)

    def _aside_over(self, task: asyncio.Task[None]) -> None:
        self._side.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("work aside failed: a bug", exc_info=error)

    async def _tell_running(self) -> None:
        while True:
            await self._young_some.wait()
            await asyncio.sleep(TELL_RUNNING_SECONDS)
            old = asyncio.get_running_loop().time() - TELL_RUNNING_SECONDS
            work = Work()
            while self._young and self._young[0][0] <= old:
                _, key = self._young.popleft()
                if (run := self.runs.get(key.execution)) is not None:
                    run.running(key, work)
            if not self._young:
                self._young_some.clear()
            await self._do(work)

    # --- claims ---

    async def _claim(self) -> None:
        await self._found_known.wait()
        pause = Pause()
        while True:
            await self.can_claim.wait()
            self.can_claim.clear()
            try:
                while self._guard.state.claims:
                    if not self.reconciled.is_set():
                        await self._reconcile()
                    elif wishes := self._wishes():
                        await self._claim_these(wishes)
                    else:
                        break
                    pause.over()
            except WhimbrelError as error:
                log.warning("can't claim, trying again: %s", error)
                self.can_claim.set()
                await pause.wait()

    async def _reconcile(self) -> None:
        """A new session: what is held, running or unsent is claimed again, then told anew or
        thrown away."""
        session = self.cluster_epoch
        held: dict[str, int] = {}
        for execution, epoch in (
            *((run.execution, run.epoch) for run in self.runs.values()),
            *((entry.execution, entry.epoch) for entry in self._outbox.pending()),
            *((key.execution, key.epoch) for key in self._found),
        ):
            held[execution] = max(epoch, held.get(execution, 0))
        wishes = [m.Wish(execution, epoch) for execution, epoch in held.items()]
        claimed: set[m.Wish] = set()
        for at in range(0, len(wishes), CLAIMS_AT_ONCE):
            claimed |= await self._claim_these(wishes[at : at + CLAIMS_AT_ONCE])
        if session != self.cluster_epoch:
            return
        dropped = self._outbox.renumber(lambda one: m.Wish(one.execution, one.epoch) in claimed)
        self.wasted += dropped
        if dropped:
            log.warning("%d events of executions that moved on were dropped", dropped)
        self._found.clear()
        self._strays.clear()
        self.reconciled.set()

    def _wishes(self) -> list[m.Wish]:
        room = self._max_executions - len(self.runs) if self._outbox.healthy else 0
        wishes = [m.Wish(x, self.runs[x].epoch) for x in self._again if x in self.runs]
        for execution, epoch in self._wanted.items():
            if epoch <= self._refused.get(execution, 0):
                continue
            run = self.runs.get(execution)
            if run is not None and run.epoch >= epoch:
                continue
            if run is None:
                if room <= 0:
                    continue
                room -= 1
            wishes.append(m.Wish(execution, epoch))
        return wishes[:CLAIMS_AT_ONCE]

    async def _claim_these(self, wishes: Sequence[m.Wish]) -> set[m.Wish]:
        """Claim and apply the verdicts; answers what is ours."""
        session = self.cluster_epoch
        answers = await self._ledger.claim(wishes, cluster_epoch=session)
        claimed: set[m.Wish] = set()
        work = Work()
        for answer in answers:
            if session != self.cluster_epoch:
                break
            if isinstance(answer, m.NotClaimed):
                self._refused[answer.execution] = answer.epoch
                self._drop(answer.execution, answer.epoch, work)
                self._again.pop(answer.execution, None)
                continue
            await self._take(answer, work)
            self._refused.pop(answer.execution, None)
            claimed.add(m.Wish(answer.execution, answer.epoch))
        await self._do(work)
        return claimed

    async def _take(self, claimed: m.Claimed, work: Work) -> None:
        execution, epoch = claimed.execution, claimed.epoch
        run = self.runs.get(execution)
        rebuild = self._again.pop(execution, False)
        if run is not None and run.epoch == epoch and not rebuild:
            return
        try:
            graph = await self._specs.graph(claimed.spec_digest)
        except Unreachable:
            if rebuild:
                self._again[execution] = True
            raise
        except WhimbrelError as error:
            graph = Failure(Owner.CONFIG, "spec", error.message)
        if claimed.mode != Mode.IDEMPOTENT:
            graph = Failure(Owner.CONFIG, "mode", f"{claimed.mode} runs are not served here")
        pending = [
            event
            for entry in self._outbox.pending()
            if entry.execution == execution and entry.epoch == epoch
            if (event := codec.decode(entry.data)) is not None
        ]
        documents = await self._documents((*claimed.outputs, *pending))
        self._drop(execution, epoch, work, keep_found=True)
        run = Run(claimed, spans=self._spans)
        self._hold(run)
        if isinstance(graph, Failure):
            if not any(isinstance(event, m.LAST) for event in pending):
                run.refuse(graph, work)
            return
        run.begin(graph, pending=pending, documents=documents, found=self._found, work=work)
        for event in self._strays.pop(execution, ()):
            self._hear(event, work)

    async def _documents(self, events: Iterable[m.Event]) -> dict[str, dag.Outputs | None]:
        """Offloaded outputs documents by digest, None for those that can't be read."""
        wanted = [
            event.outputs.offloaded
            for event in events
            if isinstance(event, m.NodeOutput) and event.outputs.offloaded is not None
        ]
        found = await asyncio.gather(*map(self._document, wanted))
        return {one.sha256: text for one, text in zip(wanted, found, strict=True)}

    async def _document(self, artifact: Artifact) -> dag.Outputs | None:
        try:
            data = await self._store.get(artifact.uri)
        except Exception as error:
            # Whatever a store's client raises means the same here.
            log.warning("can't read %s: %s", artifact.uri, error)
            return None
        if sha256(data) != artifact.sha256:
            log.error("%s is not what was written", artifact.uri)
            return None
        document: dict[str, Any] = json.loads(data)
        return document

    # --- commits ---

    async def _commit(self) -> None:
        """One batch in flight; while it is, the next one grows."""
        pause = Pause()
        while True:
            await self.reconciled.wait()
            batch = await self._outbox.batch(1000, limit_bytes=4 * 1024 * 1024)
            session, first = self.cluster_epoch, self._outbox.first
            if not self.reconciled.is_set():
                continue
            if not self._guard.state.commits:
                await asyncio.sleep(0.05)
                continue
            try:
                receipt = await self._ledger.commit(
                    [entry.data for entry in batch], first=first, cluster_epoch=session
                )
            except WhimbrelError as error:
                log.warning("can't commit, trying again: %s", error)
                await pause.wait()
                continue
            # The answer of an old session: the new one tells everything again.
            if session == self.cluster_epoch and self.reconciled.is_set():
                pause.over()
                await self._settled(batch, first, receipt)

    async def _settled(self, batch: Sequence[Any], first: int, receipt: m.Receipt) -> None:
        if receipt.gap:
            log.error("the ledger expects event %d, ours begin at %d", receipt.gap, first)
            if not first < receipt.gap <= first + len(batch):
                # It knows less than it confirmed (a restored backup): only a new session numbers
                # anew.
                self.reconciled.clear()
                self.lost_numbers()
                return
            self._outbox.settle(receipt.gap - 1)
            return
        count = max(0, min(receipt.cursor - first + 1, len(batch)))
        self._outbox.settle(receipt.cursor)
        objections = {one.index: one for one in receipt.objections}
        work = Work()
        for index, entry in enumerate(batch[:count]):
            objection = objections.get(index)
            if objection is not None and objection.verdict is not m.Verdict.ALREADY_COMMITTED:
                await self._objected(entry.execution, entry.epoch, objection, work)
            elif entry.last:
                self._drop(entry.execution, entry.epoch, work)
                self.can_claim.set()
        await self._do(work)

    def lost_numbers(self) -> None:
        """Replaced by the session: say Hello anew, not resuming."""

    async def _objected(
        self, execution: str, epoch: int, objection: m.Objection, work: Work
    ) -> None:
        run = self.runs.get(execution)
        if run is None or run.epoch != epoch:
            self.wasted += objection.verdict is m.Verdict.FENCED
            return
        fields = {"execution": execution, "epoch": epoch}
        match objection.verdict:
            case m.Verdict.FENCED if objection.current_epoch > epoch:
                log.warning("fenced by epoch %d", objection.current_epoch, extra=fields)
                self.wasted += 1
                self._refused[execution] = epoch
                self._drop(execution, epoch, work)
            case m.Verdict.CONFLICT if objection.kept is not None:
                log.error("the ledger kept another output", extra=fields)
                kept = objection.kept
                documents = await self._documents((kept,))
                if kept.outputs.offloaded is not None:
                    document = documents[kept.outputs.offloaded.sha256]
                else:
                    document = json.loads(kept.outputs.value)
                if document is None:
                    self._claim_anew(execution)
                else:
                    run.replaced(kept, document, work)
            case _:
                # Not live what we took for live, or not claimed what we took for claimed: begin
                # from its answer.
                log.warning("%s: claiming again", objection.verdict, extra=fields)
                self._claim_anew(execution)

    def _claim_anew(self, execution: str) -> None:
        self._again[execution] = True
        self.can_claim.set()

    # --- holding and dropping ---

    def _hold(self, run: Run) -> None:
        self.runs[run.execution] = run
        self._digest ^= _mark(run)

    def _drop(self, execution: str, epoch: int, work: Work, *, keep_found: bool = False) -> None:
        """Forget it up to `epoch`: stop its attempts, say nothing more."""
        run = self.runs.get(execution)
        if run is not None and run.epoch <= epoch:
            run.stop(work)
            del self.runs[execution]
            self._digest ^= _mark(run)
        if not keep_found:
            gone = [k for k in self._found if k.execution == execution and k.epoch <= epoch]
            for key in gone:
                del self._found[key]
            work.cancels.extend(gone)
            self._strays.pop(execution, None)

    def _unwanted(self, execution: str, epoch: int, work: Work) -> None:
        if self._wanted.get(execution, 0) <= epoch:
            self._wanted.pop(execution, None)
        self._drop(execution, epoch, work)


def _mark(run: Run) -> int:
    return int(sha256(f"{run.execution}@{run.epoch}"), 16)


class Pause:
    """Waits between tries: 0.2 s, doubled up to 5 s, with jitter so that regions don't come back
    as one."""

    def __init__(self) -> None:
        self._seconds = 0.2

    def over(self) -> None:
        self._seconds = 0.2

    async def wait(self) -> None:
        await asyncio.sleep(self._seconds * random.uniform(0.5, 1.0))
        self._seconds = min(self._seconds * 2, 5.0)
