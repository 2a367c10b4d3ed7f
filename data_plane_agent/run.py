"""One execution held by this agent: its graph's state, its attempts, and what both lead to.

Called by the engine with a Claim's answer and with what the launcher saw; turns dag decisions into
attempts to start, attempts to stop and events for the outbox, gathered in a `Work`; does no input
or output itself.
"""

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from whimbrel.spec import Failure, Mode, Owner, canonical

from data_plane_agent import codec, dag
from data_plane_agent import messages as m
from data_plane_agent.documents import artifacts
from data_plane_agent.launcher import (
    Attempt,
    AttemptEvent,
    AttemptKey,
    Broke,
    Finished,
    Found,
    Saved,
    Started,
    Unplaceable,
)
from data_plane_agent.memory import Memory
from data_plane_agent.outbox import Entry
from data_plane_agent.residency import Residency
from data_plane_agent.spans import Spans
from data_plane_agent.work import Ending, Trial, Work

MODES = {one.value: one for one in Mode}
OUTPUTS_BYTES = 1024 * 1024
"""Of a workflow's outputs, which travel in one message as its inputs do. More would pass the limit
of the message and never arrive."""


class Run:
    """Made at a successful Claim of (execution, epoch). `leaving`: it is to be let go of, with
    these words. `undead` are attempts that are over for us and of which code may still run: for
    all but idempotent runs nothing follows them before that is ruled out."""

    def __init__(
        self, claimed: m.Claimed, *, spans: Spans, undead: Iterable[AttemptKey] = ()
    ) -> None:
        self.execution = claimed.execution
        self.epoch = claimed.epoch
        self.mode = MODES.get(claimed.mode, Mode.EXCLUSIVE)
        self.trials: dict[str, Trial] = {}
        self.ended = False
        self.leaving: m.Released | None = None
        self.undead = set(undead)
        self.residency = Residency.of(claimed)
        self._claimed = claimed
        self._spans = spans
        self._project, self._domain, _ = claimed.execution.split("/", 2)
        self._memory = Memory(claimed)
        self._state: dag.State | None = None
        self._succeeds = False

    def begin(
        self,
        graph: dag.Graph,
        *,
        pending: Sequence[m.Event],
        documents: Mapping[str, dag.Outputs | None],
        found: Mapping[AttemptKey, str],
        used: Mapping[str, int],
        work: Work,
    ) -> None:
        """Take up the run. `pending` are our own events the ledger has not confirmed; `documents`
        offloaded outputs by digest, None for an unreadable one; `found` attempts that outlived the
        agent: adopted where they fit; `used` numbers of attempts that no other one may get."""
        memory = self._memory
        events = (*self._claimed.outputs, *pending)
        memory.recall(events, documents=documents, residency=self.residency)
        for node, attempt in used.items():
            memory.use(node, attempt)
        mine = dict(found)
        if any(isinstance(event, m.LAST) for event in pending):
            self.ended = True
            work.cancels.extend(mine)
            return
        inputs: dict[str, Any] = json.loads(self._claimed.inputs or "{}")
        self._state, decisions = dag.begin(graph, inputs, known=memory.known, tries=memory.tries)
        self._claimed = m.Claimed(self.execution, self.epoch, "", "", self._claimed.traceparent)
        # Of one whose end we were killed after writing, and before its launcher knew of that.
        over = {(one.node, one.attempt) for one in pending if isinstance(one, m.AttemptFailed)}
        usable = {
            (key.node, digest): key
            for key, digest in mine.items()
            if key.epoch == self.epoch and (key.node, key.attempt) not in over
        }
        fresh: list[dag.Decision] = []
        for decision in decisions:
            if isinstance(decision, dag.Start):
                key = usable.get((decision.node, decision.input_digest))
                if key is not None:
                    dag.adopt(self._state, decision.node, key.attempt)
                    self._adopt(key, decision.input_digest, work)
                    del mine[key]
                    continue
            fresh.append(decision)
        work.cancels.extend(mine)
        self.undead.update(mine)
        self._apply(fresh, work)
        self._let_go(work)

    def quiesce(self, said: m.Released, work: Work) -> None:
        """Start nothing more, for good; ask what runs to save and to end; once nothing is left, say
        so."""
        if self.leaving is not None or self.ended:
            return
        self.leaving = said
        work.leaving.append(self)
        for trial in tuple(self.trials.values()):
            if trial.runs:
                work.quiesces.append(trial.key)
                continue
            del self.trials[trial.key.node]
            if trial.given:
                work.cancels.append(trial.key)
                self.undead.add(trial.key)
        if self._state is not None:
            self._let_go(work)

    def out_of_time(self, work: Work) -> None:
        """What still runs of it, asked to end and to save, is stopped."""
        assert self.leaving is not None
        self._end(self.leaving, work)

    def _let_go(self, work: Work) -> None:
        # What it ends with may be on its way to the store.
        if self.leaving is not None and not (self.ended or self.trials or self._succeeds):
            self._end(self.leaving, work)

    def refuse(self, failure: Failure, work: Work) -> None:
        """This agent can't drive it at all; say so."""
        self._end(m.Failed(failure), work)

    def stop(self, work: Work) -> None:
        """Somebody else's, or nobody's, now: nothing is said about it any more."""
        self.ended = True
        work.cancels.extend(trial.key for trial in self.trials.values())
        self.trials.clear()

    def hand_over(self) -> list[Trial]:
        """Its attempts, which go on; nothing more is said about them or the run, and what has not
        been started of it is not."""
        self.ended = True
        trials = [trial for trial in self.trials.values() if trial.given]
        self.trials.clear()
        return trials

    @property
    def attempts(self) -> list[AttemptKey]:
        """All of which code may run."""
        return [trial.key for trial in self.trials.values() if trial.given] + list(self.undead)

    @property
    def used(self) -> dict[str, int]:
        """The newest attempt of each node, whether the ledger has heard of it or not."""
        tries = self._state.tries if self._state is not None else {}
        return {node: one.attempts for node, one in tries.items()}

    def undead_of(self, node: str) -> tuple[AttemptKey, ...]:
        """What has to be dead before the next attempt of this node may start."""
        if self.mode is not Mode.EXCLUSIVE:
            return ()
        return tuple(key for key in self.undead if key.node == node)

    def waits_for(self, key: AttemptKey) -> bool:
        trial = self.trials.get(key.node)
        return trial is not None and trial.key == key

    def heard(self, event: AttemptEvent, work: Work, *, document: dag.Outputs | None) -> None:
        """`document` is the outputs document of a Finished that was read from the store, None if
        it travels inline."""
        if isinstance(event, Found) or self._state is None or not self.waits_for(event.key):
            return
        trial = self.trials[event.key.node]
        event = self.residency.event(event)
        match event:
            case Started(key, at_ns, host, avoided):
                trial.started_ns, trial.host, trial.avoided = at_ns, host, avoided
                trial.no_room, trial.runs = "", True
                work.started.append(key)
            case Unplaceable(_, message):
                trial.no_room = message
            case Saved(key, artifact, at_ns):
                saved = m.Checkpointed(key.node, key.attempt, artifact, at_ns)
                self._say(saved, work)  # first: whether it can be told at all
                self._memory.checkpoints[key.node] = saved
            case Finished():
                self._finished(self._state, trial, event, document, work)
            case Broke():
                self._broke(self._state, trial, event, work)
        self._let_go(work)

    def mistaken(self, event: AttemptEvent, instead: Broke, work: Work) -> None:
        """`heard` failed on this event: the attempt is at fault, or, if that comes too late, the
        run."""
        if not isinstance(event, Finished | Broke):
            return
        if isinstance(event, Finished) and self.waits_for(event.key):
            self.heard(instead, work, document=None)
        elif not self.ended:
            self.refuse(instead.failure, work)

    def running(self, key: AttemptKey, work: Work) -> None:
        """This attempt outlived its batch: worth a status."""
        trial = self.trials.get(key.node)
        if trial is not None and trial.key == key and not trial.told:
            trial.told = True
            runs = m.AttemptRuns(key.node, key.attempt, trial.started_ns, trial.host, trial.avoided)
            self._say(runs, work)

    @property
    def squeezed(self) -> bool:
        """Some attempt has found no room here for too long."""
        return any(trial.no_room for trial in self.trials.values())

    @property
    def stuck(self) -> bool:
        """Nothing of it goes on here: every attempt in flight has found no room for too long."""
        return bool(self.trials) and all(trial.no_room for trial in self.trials.values())

    def release(self, work: Work) -> None:
        """Let go of it, so that it is placed elsewhere; nothing of it starts here afterwards."""
        node, trial = next(iter(self.trials.items()))
        self._end(m.Released("unschedulable", f"no room for {node}: {trial.no_room}"), work)

    def _finished(
        self,
        state: dag.State,
        trial: Trial,
        event: Finished,
        document: dag.Outputs | None,
        work: Work,
    ) -> None:
        key = event.key
        values = json.loads(event.outputs.value) if document is None else document
        output = m.NodeOutput(
            key.node,
            key.attempt,
            event.outputs,
            trial.input_digest,
            event.started_ns,
            event.ended_ns,
            event.logs,
            host=event.host or trial.host,
        )
        self._say(output, work)  # first of all: whether it can be told at all
        self._over(trial, event, "")
        if event.logs.stdout or event.logs.stderr:
            work.logs.append((key, event.logs))
        values = self.residency.values(values)
        self._apply(dag.advance(state, dag.NodeSucceeded(key.node, key.attempt, values)), work)

    def _broke(self, state: dag.State, trial: Trial, event: Broke, work: Work) -> None:
        key = event.key
        host = event.host or trial.host
        self._over(trial, event, event.failure.message)
        if event.logs.stdout or event.logs.stderr:
            work.logs.append((key, event.logs))
        if event.unreadable:
            self._end(m.Unreachable(key.node, event.unreadable), work)
            return
        failure = event.failure
        if not failure.node:
            failure = Failure(
                failure.owner, failure.kind, failure.message, key.node, failure.traceback
            )
        if failure.owner is Owner.SYSTEM:  # of a machine that is not seen, its code may go on
            self.undead.add(key)
        self._memory.broke(key.node, failure, host)
        saved = self._memory.saved(key.node, key.attempt)
        decisions = dag.advance(state, dag.NodeFailed(key.node, key.attempt, failure, saved))
        again = any(isinstance(one, dag.Start) and one.node == key.node for one in decisions)
        status = m.AttemptFailed(
            key.node,
            key.attempt,
            failure,
            again,
            event.started_ns,
            event.ended_ns,
            event.logs,
            host,
            trial.avoided,
        )
        self._say(status, work)
        self._apply(decisions, work)

    def _over(self, trial: Trial, event: Finished | Broke, error: str) -> None:
        del self.trials[trial.key.node]
        self._spans.attempt_over(trial, event, parent=self._claimed.traceparent, error=error)

    def _apply(self, decisions: Sequence[dag.Decision], work: Work) -> None:
        work.decisions += len(decisions)
        for decision in decisions:
            match decision:
                case dag.Start() if self.leaving is not None:
                    pass
                case dag.Start():
                    attempt = self._attempt(decision)
                    if decision.after_seconds:
                        work.later.append((decision.after_seconds, attempt))
                    else:
                        work.starts.append(attempt)
                case dag.Succeed(outputs) if self.residency.secluded:
                    self._succeeds = True
                    work.results.append((self, outputs))
                case dag.Succeed(outputs):
                    self.succeed(outputs, work)
                case dag.Fail(failure):
                    self._end(m.Failed(failure), work)
                case dag.Unreadable(node, uris):
                    self._end(m.Unreachable(node, uris), work)

    def succeed(self, outputs: dag.Outputs, work: Work) -> None:
        """`outputs` as they are told."""
        text = canonical(outputs)
        if (size := len(text.encode())) > OUTPUTS_BYTES:
            said = (
                f"the workflow's outputs take {size} bytes, at most {OUTPUTS_BYTES} are kept with "
                "a run: return a File for large data"
            )
            self._end(m.Failed(Failure(Owner.USER, "outputs_too_large", said)), work)
            return
        self._end(m.Succeeded(text, tuple(artifacts(outputs))), work)

    def _attempt(self, start: dag.Start) -> Attempt:
        assert self._state is not None
        graph = self._state.graph
        node = graph.nodes[start.node]
        task = graph.tasks[node.task]
        over = node.overrides
        key = AttemptKey(self.execution, start.node, start.attempt, self.epoch)
        trial = self._trial(key, start.input_digest)
        timeout = over.timeout_seconds
        saved = self._memory.checkpoints.get(start.node)
        return Attempt(
            key=key,
            task=task,
            inputs=start.inputs,
            input_digest=start.input_digest,
            project=self._project,
            domain=self._domain,
            requests=over.requests or task.requests,
            limits=over.limits or task.limits,
            timeout_seconds=task.timeout_seconds if timeout is None else timeout,
            traceparent=trial.task_trace,
            checkpoint=saved.artifact if saved else None,
            avoid=self._memory.avoid.get(start.node, ()),
            exclusive=self.mode is Mode.EXCLUSIVE,
        )

    def _adopt(self, key: AttemptKey, input_digest: str, work: Work) -> None:
        trial = self._trial(key, input_digest)
        trial.given = trial.runs = True
        if self.mode is Mode.EXCLUSIVE:
            work.adopts.append(key)
        if self.leaving is not None:
            work.quiesces.append(key)

    def _trial(self, key: AttemptKey, input_digest: str) -> Trial:
        trace = self._spans.child(self._claimed.traceparent)
        trial = Trial(key, input_digest, trace, self._spans.same(trace), time.time_ns())
        self.trials[key.node] = trial
        return trial

    def _say(self, event: m.Event, work: Work) -> None:
        data = codec.encode(event, execution=self.execution, epoch=self.epoch)
        work.entries.append(Entry(self.execution, self.epoch, data, isinstance(event, m.LAST)))

    def _end(self, event: m.Event, work: Work) -> None:
        attempts = tuple(self.attempts)
        self.stop(work)
        if self.mode is Mode.IDEMPOTENT or isinstance(event, m.Succeeded):
            self._say(event, work)
        else:
            work.endings.append(Ending(self, event, attempts))

    def say_last(self, event: m.Event, work: Work) -> None:
        """The end that its attempts' death was waited for."""
        self._say(event, work)
