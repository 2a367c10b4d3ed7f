"""What this agent holds, what it is asked to hold, and what it still has from before: the books of
the engine.

Called by the engine on every assignment, verdict and end; answers what to claim next; does no
input or output.
"""

import logging
from collections.abc import Iterable

from whimbrel.service.held import HeldDigest
from whimbrel.spec import Mode, Want

from data_plane_agent import messages as m
from data_plane_agent.launcher import AttemptEvent, AttemptKey, Started, Unplaceable
from data_plane_agent.run import Run
from data_plane_agent.work import Work

log = logging.getLogger(__name__)


class Holdings:
    """`runs` are claimed. `found` outlived a former agent, or the doubt about their run, and wait
    for a verdict, `strays` are their events. `again` are to be claimed again; True: and begun anew
    from the answer. `squeezed` have an attempt that found no room; a pinned run waits on."""

    def __init__(self) -> None:
        self.runs: dict[str, Run] = {}
        self.found: dict[AttemptKey, str] = {}
        self.strays: dict[str, list[AttemptEvent]] = {}
        self.again: dict[str, bool] = {}
        self.squeezed: set[str] = set()
        self._wanted: dict[str, int] = {}
        self._refused: dict[str, int] = {}
        self._leaving: dict[str, int] = {}
        self._drained = False
        self.digest = HeldDigest()

    def held(self) -> tuple[m.Wish, ...]:
        return tuple(m.Wish(run.execution, run.epoch) for run in tuple(self.runs.values()))

    def owner(self, key: AttemptKey) -> Run | None:
        """The run that waits for this attempt."""
        run = self.runs.get(key.execution)
        return run if run is not None and run.waits_for(key) else None

    def assigned(self, heard: m.All | m.Changed | m.Removed, work: Work) -> None:
        for one in heard.assignments:
            if isinstance(heard, m.Removed) and self._harmful(one.execution):
                # A key may have been lost, and be put again for the very epoch: only the ledger can
                # say that what runs is not ours, or a second copy would begin beside it.
                self.again.setdefault(one.execution, False)
            elif isinstance(heard, m.Removed) or one.want is Want.CANCEL:
                self._unwanted(one.execution, one.epoch, work)
            elif one.epoch >= self._wanted.get(one.execution, 0):
                self._wanted[one.execution] = one.epoch
                if one.want is Want.QUIESCE:
                    self._quiesce(one.execution, one.epoch, work)
        if isinstance(heard, m.All):
            named = {one.execution for one in heard.assignments}
            # Asked for again at an epoch that was refused: the rows may have come from a backup.
            self._refused = {x: epoch for x, epoch in self._refused.items() if x not in named}
            self._wanted = {x: epoch for x, epoch in self._wanted.items() if x in named}
            here = named | self.runs.keys()
            self._leaving = {x: epoch for x, epoch in self._leaving.items() if x in here}
            # Silence kills nothing (etcd may have been wiped): the ledger says whether they are
            # ours.
            self.again.update((x, self.again.get(x, False)) for x in self.runs if x not in named)

    def _quiesce(self, execution: str, epoch: int, work: Work) -> None:
        """It is to be let go of; for good, whatever is said later of this epoch."""
        self._leaving[execution] = max(epoch, self._leaving.get(execution, 0))
        if execution in self.runs:
            self._leave(self.runs[execution], work)

    def drain(self, work: Work) -> None:
        """Everything is to be let go of, also what is claimed again."""
        self._drained = True
        for run in self.runs.values():
            self._leave(run, work)

    def _leave(self, run: Run, work: Work) -> None:
        """Begin to let go of it, if that is wished at its epoch."""
        if self._leaving.get(run.execution) == run.epoch:
            run.quiesce(m.Released("", "quiesced"), work)
        elif self._drained:
            run.quiesce(m.Released("drain", "its agent stops"), work)

    def wishes(self, *, room: int) -> list[m.Wish]:
        """What to claim: again what is in doubt, and what is assigned and not yet ours, as long as
        there is room."""
        self.again = {x: anew for x, anew in self.again.items() if x in self.runs}
        wishes = [m.Wish(x, self.runs[x].epoch) for x in self.again]
        room -= len(self.runs)
        for execution, epoch in self._wanted.items():
            run = self.runs.get(execution)
            if epoch <= self._refused.get(execution, 0) or (run is not None and run.epoch >= epoch):
                continue
            # What is only to be let go of takes no room.
            if run is None and self._leaving.get(execution) != epoch:
                if room <= 0:
                    continue
                room -= 1
            wishes.append(m.Wish(execution, epoch))
        return wishes

    def everything(self, unsent: Iterable[m.Wish]) -> list[m.Wish]:
        """What a new session has to claim first: the newest epoch of each execution that is here
        in any form."""
        self._refused.clear()
        newest: dict[str, int] = {}
        for one in (
            *self.held(),
            *unsent,
            *(m.Wish(key.execution, key.epoch) for key in self.found),
        ):
            newest[one.execution] = max(one.epoch, newest.get(one.execution, 0))
        return [m.Wish(execution, epoch) for execution, epoch in newest.items()]

    def hold(self, run: Run, *, want: Want, work: Work) -> None:
        """`want`: as the claim says."""
        self.runs[run.execution] = run
        self.digest.flip(run.execution, run.epoch)
        if want is Want.QUIESCE:
            self._leaving[run.execution] = run.epoch
        self._leave(run, work)

    def refused(self, execution: str, epoch: int, work: Work) -> None:
        """Not ours at this epoch, or over: it is not claimed again."""
        self._refused[execution] = max(epoch, self._refused.get(execution, 0))
        self.again.pop(execution, None)
        self.drop(execution, epoch, work)
        gone = [k for k in self.found if k.execution == execution and k.epoch <= epoch]
        for key in gone:
            del self.found[key]
        work.cancels.extend(gone)
        self.strays.pop(execution, None)

    def doubt(self, execution: str) -> None:
        """Nothing is said of this run, and nothing starts, until it is claimed anew and begun from
        the answer. Its attempts go on meanwhile, and are adopted where they still fit."""
        self.again[execution] = True
        for trial in self.runs[execution].hand_over():
            key = trial.key
            self.found[key] = trial.input_digest
            heard = self.strays.setdefault(execution, [])
            if trial.started_ns:
                heard.append(Started(key, trial.started_ns, trial.host, trial.avoided))
            if trial.no_room:
                heard.append(Unplaceable(key, trial.no_room))

    def take_found(self, execution: str) -> dict[AttemptKey, str]:
        """Those of this run, whose verdict has come: each is adopted or stopped now."""
        keys = [key for key in self.found if key.execution == execution]
        return {key: self.found.pop(key) for key in keys}

    def drop(self, execution: str, epoch: int, work: Work) -> None:
        """Forget the run up to `epoch`: stop its attempts, say nothing more."""
        run = self.runs.get(execution)
        if run is not None and run.epoch <= epoch:
            run.stop(work)
            del self.runs[execution]
            self.digest.flip(execution, run.epoch)

    def let_go(self, work: Work) -> None:
        """Release the runs of which nothing goes on, as there is no room for them."""
        for execution in tuple(self.squeezed):
            run = self.runs.get(execution)
            if run is None or not run.squeezed:
                self.squeezed.discard(execution)
            elif run.stuck and run.mode is not Mode.PINNED:
                fields = {"execution": execution, "epoch": run.epoch}
                log.warning("released: there is no room for it here", extra=fields)
                run.release(work)

    def settled(self) -> None:
        """Every verdict about what is from before has been applied."""
        self.found.clear()
        self.strays.clear()

    def _harmful(self, execution: str) -> bool:
        run = self.runs.get(execution)
        return run is not None and run.mode is Mode.EXCLUSIVE

    def _unwanted(self, execution: str, epoch: int, work: Work) -> None:
        if self._wanted.get(execution, 0) <= epoch:
            self._wanted.pop(execution, None)
        self.refused(execution, epoch, work)
        if execution not in self._wanted:
            # Without a wish nothing claims it; a book of every run there ever was would only grow.
            del self._refused[execution]
            self._leaving.pop(execution, None)
