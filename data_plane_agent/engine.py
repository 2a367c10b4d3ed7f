"""Drives every execution this agent holds: claims it, runs its graph, keeps the ledger informed.

Called by the session (assignments, a new session) and by the launcher's batches; hands attempts to
the launcher and events to the outbox. Nothing starts before its Claim; nothing waits for a commit;
no task of its own per node.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from whimbrel.errors import Unreachable, WhimbrelError
from whimbrel.spec import Failure, Owner

from data_plane_agent import codec, dag
from data_plane_agent import messages as m
from data_plane_agent.aside import Aside
from data_plane_agent.attempt_answers import bad_answer
from data_plane_agent.attempt_logs import AttemptLogs
from data_plane_agent.beside import Beside
from data_plane_agent.commits import Commits, Settled
from data_plane_agent.death import Death
from data_plane_agent.documents import Documents, Store
from data_plane_agent.fence import Drain, Reconciled
from data_plane_agent.guard import Guard
from data_plane_agent.holdings import Holdings
from data_plane_agent.launcher import (
    AttemptEvent,
    AttemptKey,
    Broke,
    Finished,
    Found,
    Launcher,
    Unplaceable,
)
from data_plane_agent.leaving import QUIESCE_SECONDS, Leaving
from data_plane_agent.outbox import Outbox
from data_plane_agent.pause import Pause
from data_plane_agent.run import MODES, Run
from data_plane_agent.spans import Spans
from data_plane_agent.specs import Specs
from data_plane_agent.starting import Starting
from data_plane_agent.telling import Telling
from data_plane_agent.work import Work

log = logging.getLogger(__name__)

CLAIMS_AT_ONCE = 200


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
        renew: Callable[[], None],
        quiesce_seconds: float = QUIESCE_SECONDS,
    ) -> None:
        """`renew` asks for a new session: Hello anew, resuming nothing."""
        self._launcher = launcher
        self._ledger = ledger
        self._outbox = outbox
        self._documents = Documents(store)
        self._specs = specs
        self._guard = guard
        self._spans = spans
        self._max_executions = max_executions
        self.holdings = Holdings()
        self.logs = AttemptLogs()
        self.progress = 0
        self.wasted = 0
        self.cluster_epoch = 0
        self.commits = Commits(
            outbox=outbox, ledger=ledger, guard=guard, on_settled=self._settled, renew=self._anew
        )
        self._renew = renew
        self.can_claim = asyncio.Event()
        self._found_known = asyncio.Event()
        self._drained = asyncio.Event()
        self._vitals = (self.load(), 0, False)
        self._aside = Aside()
        self._beside = Beside(self._documents, hear=self._hear, do=self._do)
        self._telling = Telling(self.holdings, do=self._do)
        death = Death(launcher)
        self._starting = Starting(
            self.holdings, launcher=launcher, outbox=outbox, guard=guard, death=death,
            aside=self._aside,
        )  # fmt: skip
        self._leaving = Leaving(
            self.holdings, guard=guard, death=death, aside=self._aside, seconds=quiesce_seconds,
            hear=self._hear, do=self._do,
        )  # fmt: skip

    # --- what the session tells and asks ---

    def joined(self, cluster_epoch: int, *, resumed: bool) -> None:
        """A session: a new one has everything held claimed before anything else."""
        if not resumed or cluster_epoch != self.cluster_epoch:
            self.cluster_epoch = cluster_epoch
            self.commits.shut()
        elif self.reconciled:
            self._guard.hear(Reconciled())
        self.can_claim.set()

    def assigned(self, heard: m.All | m.Changed | m.Removed) -> None:
        work = Work()
        self.holdings.assigned(heard, work)
        self.can_claim.set()
        self._aside.do(self._do(work))

    async def drain(self) -> None:
        """Let go of everything, for good; returns once the ledger knows."""
        self._guard.hear(Drain())
        work = Work()
        self.holdings.drain(work)
        await self._do(work)
        await self._drained.wait()

    @property
    def work_pending(self) -> bool:
        return any(run.trials for run in tuple(self.holdings.runs.values()))

    def load(self) -> m.Load:
        capacity = self._launcher.capacity()
        capacity = replace(capacity, ill=self._closed or capacity.ill)
        return m.Load(capacity, self._max_executions, len(self.holdings.runs))

    def held(self) -> tuple[m.Wish, ...]:
        return self.holdings.held()

    def vitals(self) -> tuple[m.Load, int, bool, str]:
        """As of the newest tick; callable on any thread. A loop that is stuck shows no progress."""
        load, progress, pending = self._vitals
        return load, progress, pending, str(self.holdings.digest)

    def newest(self, execution: str, node: str, *, attempt: int = 0) -> AttemptKey | None:
        """The attempt of a node, 0 = the newest, if it is known here, running or over."""
        run = self.holdings.runs.get(execution)
        keys = [run.trials[node].key] if run is not None and node in run.trials else []
        keys += self.logs.of(execution, node)
        if attempt:
            keys = [key for key in keys if key.attempt == attempt]
        return max(keys, key=lambda key: (key.epoch, key.attempt), default=None)

    @property
    def reconciled(self) -> bool:
        """Everything held has its verdict in this session."""
        return self.commits.opened.is_set()

    async def run(self) -> None:
        """Until cancelled. Whatever ends a loop ends the engine, and with it the agent: it is
        restarted."""
        self._leaving.watch()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._outbox.run(), name="outbox")
            group.create_task(self._watch(), name="watch")
            group.create_task(self._claim(), name="claim")
            group.create_task(self.commits.run(), name="commit")
            group.create_task(self._telling.run(), name="tell running")
            group.create_task(self._tick(), name="tick")

    async def _tick(self) -> None:
        """Progress the router can see even when there is nothing to decide: the loop is alive."""
        while True:
            await asyncio.sleep(0.25)
            self.progress += 1
            self._vitals = (self.load(), self.progress, self.work_pending)
            await self._starting.again()
            if self._guard.standing.draining and self.reconciled and not self.holdings.runs:
                self._drained.set()
            # Nobody hears it while we can't commit, and room may come meanwhile.
            if self.holdings.squeezed and self._guard.state.commits and self.reconciled:
                work = Work()
                self.holdings.let_go(work)
                await self._do(work)

    async def _watch(self) -> None:
        async for batch in self._launcher.watch():
            work = Work()
            for event in batch:
                self._hear(event, work)
            await self._do(work)
        raise RuntimeError("the launcher stopped telling what happens")

    def _hear(
        self,
        event: AttemptEvent,
        work: Work,
        *,
        document: dag.Outputs | None = None,
        waits: bool = True,
    ) -> None:
        """`waits` for the store, if this run's ends do; False: it has answered."""
        if isinstance(event, Found):
            self.holdings.found.update(event.running)
            self._found_known.set()
            self.can_claim.set()
            return
        run = self.holdings.owner(event.key)
        if run is None:
            if event.key in self.holdings.found:
                self.holdings.strays.setdefault(event.key.execution, []).append(event)
            elif isinstance(event, Finished | Broke):
                work.ended.append(event.key)
            return
        if waits and isinstance(event, Finished | Broke) and run.residency.waits(event):
            self._aside.do(self._beside.end(event))
            return
        try:
            run.heard(event, work, document=document)
        except Exception as error:  # one attempt's words must not end the agent
            log.exception("%s can't be taken: a bug", event.key)
            run.mistaken(event, bad_answer(event.key, repr(error)), work)
        if isinstance(event, Finished | Broke):
            work.ended.append(event.key)
        if isinstance(event, Unplaceable):
            self.holdings.squeezed.add(event.key.execution)

    async def _do(self, work: Work) -> None:
        self.progress += work.decisions
        self.logs.keep(work.logs)
        self._tell(work)
        for run, outputs in work.results:
            self._aside.do(self._beside.result(run, outputs))
        self._telling.add(work.started)
        for run in work.leaving:
            self._leaving.begin(run)
        for ending in work.endings:
            self._leaving.end(ending)
        if work.adopts:
            await self._launcher.adopt(work.adopts)
        if work.cancels:
            await self._launcher.cancel(work.cancels)
        if work.quiesces:
            await self._launcher.quiesce(work.quiesces)
        for pause, attempt in work.later:
            asyncio.get_running_loop().call_later(pause, self._starting.soon, attempt)
        if work.starts:
            await self._starting.start(work.starts)

    def _tell(self, work: Work) -> None:
        """To the outbox, in the order in which it was heard: before anything is waited for."""
        if work.entries or work.ended:
            self._outbox.put(work.entries, then=partial(self._launcher.taken, work.ended))
            work.entries, work.ended = [], []

    # --- claims ---

    async def _claim(self) -> None:
        await self._found_known.wait()
        pause = Pause()
        while True:
            await self.can_claim.wait()
            self.can_claim.clear()
            try:
                while self._guard.state.claims and self.cluster_epoch:
                    if not self.reconciled:
                        await self._reconcile()
                    elif wishes := self.holdings.wishes(
                        room=0 if self._closed else self._max_executions
                    ):
                        await self._claim_these(wishes[:CLAIMS_AT_ONCE])
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
        unsent = (m.Wish(one.execution, one.epoch) for one in self._outbox.pending())
        wishes = self.holdings.everything(unsent)
        claimed: set[m.Wish] = set()
        for at in range(0, len(wishes), CLAIMS_AT_ONCE):
            claimed |= await self._claim_these(wishes[at : at + CLAIMS_AT_ONCE])
        if session != self.cluster_epoch:
            return
        dropped = self._outbox.renumber(lambda one: m.Wish(one.execution, one.epoch) in claimed)
        self.wasted += dropped
        if dropped:
            log.warning("%d events of executions that moved on were dropped", dropped)
        self.holdings.settled()
        self.commits.open(session)
        self._guard.hear(Reconciled())

    @property
    def _closed(self) -> str:
        return self._guard.closed(spool=self._outbox.healthy)

    async def _claim_these(self, wishes: Sequence[m.Wish]) -> set[m.Wish]:
        """Claim and apply the verdicts; answers what is ours."""
        session = self.cluster_epoch
        anew = {one.execution for one in wishes if self.holdings.again.get(one.execution)}
        answers = await self._ledger.claim(wishes, cluster_epoch=session)
        claimed: set[m.Wish] = set()
        work = Work()
        try:
            for answer in answers:
                if session != self.cluster_epoch:
                    break
                if isinstance(answer, m.NotClaimed):
                    self.holdings.refused(answer.execution, answer.epoch, work)
                else:
                    await self._take(answer, work, anew=answer.execution in anew)
                    claimed.add(m.Wish(answer.execution, answer.epoch))
                    self._tell(work)
        finally:
            await self._do(work)
        return claimed

    async def _take(self, claimed: m.Claimed, work: Work, *, anew: bool) -> None:
        """`anew`: it was asked for to begin again from the answer, which is as new as the doubt."""
        execution, epoch = claimed.execution, claimed.epoch
        holdings = self.holdings
        run = holdings.runs.get(execution)
        mine = run is not None and run.epoch == epoch
        if mine and not anew:
            if not holdings.again.get(execution):
                holdings.again.pop(execution, None)
            return
        rebuild = holdings.again.pop(execution, False)
        try:
            graph = await self._specs.graph(claimed.spec_digest)
        except Unreachable:
            if rebuild:
                holdings.again[execution] = True
            raise
        except WhimbrelError as error:
            graph = Failure(Owner.CONFIG, "spec", error.message)
        if claimed.mode not in MODES:
            graph = Failure(Owner.CONFIG, "mode", f"{claimed.mode} runs are not served here")
        pending = [
            event
            for entry in self._outbox.pending()
            if entry.execution == execution and entry.epoch == epoch
            if (event := codec.decode(entry.data)) is not None
        ]
        documents = await self._documents.offloaded((*claimed.outputs, *pending))
        used = run.used if run is not None and mine else {}
        undead = run.attempts if run is not None else ()
        holdings.drop(execution, epoch, work)
        found = holdings.take_found(execution)
        run = Run(claimed, spans=self._spans, undead=undead)
        holdings.hold(run, want=claimed.want, work=work)
        if isinstance(graph, Failure):
            work.cancels.extend(found)
            run.undead.update(found)
            if not any(isinstance(event, m.LAST) for event in pending):
                run.refuse(graph, work)
            return
        run.begin(graph, pending=pending, documents=documents, found=found, used=used, work=work)
        for event in holdings.strays.pop(execution, ()):
            self._hear(event, work)

    # --- what the ledger said of a batch ---

    async def _settled(self, settled: Settled) -> None:
        work = Work()
        for entry, objection in settled:
            if objection is not None and objection.verdict is not m.Verdict.ALREADY_COMMITTED:
                self._objected(entry.execution, entry.epoch, objection, work)
            elif entry.last:
                self.holdings.refused(entry.execution, entry.epoch, work)
                self.can_claim.set()
        await self._do(work)

    def _objected(self, execution: str, epoch: int, objection: m.Objection, work: Work) -> None:
        run = self.holdings.runs.get(execution)
        if run is None or run.epoch != epoch:
            self.wasted += objection.verdict is m.Verdict.FENCED
            return
        fields = {"execution": execution, "epoch": epoch}
        if not objection.doubts(epoch):
            log.warning("fenced by epoch %d", objection.current_epoch, extra=fields)
            self.wasted += 1
            self.holdings.refused(execution, epoch, work)
            return
        # Another output is live than ours, none where we took one for live, or it is not claimed:
        # begin from the ledger's answer.
        log.warning("%s: claiming again", objection.verdict, extra=fields)
        self.holdings.doubt(execution)
        self.can_claim.set()

    def _anew(self) -> None:
        """Until the next session, this one's claims are nothing to commit on."""
        self.cluster_epoch = 0
        self._renew()
