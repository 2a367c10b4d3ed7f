"""A recorded history of one run, replayed as transitions of the model's row: the first that no rule
allows is told. Pure.

Called by `trace.py` with what the database holds; asks `ledger.py`, as the exploration does.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.model import ledger
from tests.model.history import History, Last, Line
from tests.model.invariants import of_taking
from tests.model.setup import Setup
from tests.model.state import NOTHING, TERMINAL, Event, Row

FIRST = Row(0, 0, 0, NOTHING, "QUEUED", 0, (NOTHING, NOTHING), (0, 0), 0, "run", 0)
ENDS = {"succeeded": "SUCCEEDED", "failed": "FAILED", "cancelled": "ABORTED"}
NO_LINE = Line(-1, "", "", "")
REMARKS = ("held", "refused", "stayed", "kept")
"""Said of a run, without a change to its row."""


class Impossible(Exception):
    """What no rule of the model allows."""


@dataclass
class Replay:
    """`claims` and `free`: who claimed which epoch, and at which the row was nobody's."""

    setup: Setup
    placed: Mapping[int, str]
    row: Row = FIRST
    names: dict[str, int] = field(default_factory=dict[str, int])
    claims: set[tuple[int, str, int]] = field(default_factory=set[tuple[int, str, int]])
    free: set[int] = field(default_factory=set[int])
    before: Line = NO_LINE

    def number(self, cluster: str) -> int:
        return self.names.setdefault(cluster, len(self.names) + 1) if cluster else 0

    def owner(self) -> str:
        return next((name for name, at in self.names.items() if at == self.row.owner), "")

    def take(self, line: Line) -> None:
        if (line.kind == "launched") != (self.before.kind == ""):
            raise Impossible("a history begins with launched, once")
        changes = line.kind not in (*REMARKS, "quiesced", "moved", "launched")
        if changes and self.row.phase in TERMINAL:
            raise Impossible(f"the run had {self.row.phase} before")
        self.turned(line)
        if not self.row.owner:
            self.free.add(self.row.epoch)
        self.before = line

    def turned(self, line: Line) -> None:
        row = self.row
        match line.kind:
            case "launched":
                need(line.epoch == 0, "a run begins at epoch 0")
            case "placed":
                self.may_place(line)
            case "fenced":
                self.fenced(line)
            case "claimed":
                self.claimed(line)
            case "waiting":
                need(not row.owner and line.epoch == row.epoch, "only what is nobody's waits")
                self.row = row._replace(phase="WAITING")
            case "migrating":
                self.owned(line, claimed=False)
                after = ledger.quiesced(
                    self.setup, row, epoch=line.epoch, cluster=self.number(line.cluster)
                )
                self.row = needed(after, "a migration asks only the owner that it saw")
            case "suspected" | "pinned" | "stays":
                self.owned(line, claimed=False)
            case "released":
                self.owned(line, claimed=True)
                said = Event("released", 0, 0, line.epoch, NOTHING, NOTHING)
                self.row, verdict, _ = ledger.commit(
                    self.setup, row, said, cluster=row.owner, session=row.session
                )
                need(verdict == "COMMITTED", f"the ledger answers {verdict}")
            case "unreachable" if not line.cluster:
                need(not row.owner and line.epoch == row.epoch, "only what is nobody's is declared")
            case "unreachable" | "unreadable":
                self.owned(line, claimed=True, raised=1)
                self.row = ledger.handed_back(row)
            case "succeeded" | "failed" | "cancelled":
                self.ended(line)
            case "alarm":
                need(line.epoch > row.epoch + 1, "an alarm raises a row above what somebody has")
                self.row = ledger.above(row, line.epoch - 1)
            case "quiesced":
                need(line.epoch in self.free, "its owner had neither let go nor been fenced")
            case "moved":
                need(
                    any(line.epoch == e and line.cluster == c for e, c, _ in self.claims),
                    "nobody had claimed it there",
                )
            case kind if kind in REMARKS:
                need(line.epoch <= row.epoch, "it speaks of an epoch that is yet to come")
            case _:
                raise Impossible("the model knows no such event: teach tests/model/replay.py")

    def owned(self, line: Line, *, claimed: bool, raised: int = 0) -> None:
        need(
            line.cluster != "" and self.number(line.cluster) == self.row.owner,
            f"its owner was {self.owner() or 'nobody'}",
        )
        need(line.epoch == self.row.epoch + raised, f"the row was at epoch {self.row.epoch}")
        need(not claimed or self.row.session > 0, f"{line.cluster} had not claimed it")

    def may_place(self, line: Line) -> None:
        need(
            not (self.row.owner and self.row.session),
            f"{self.owner()} had claimed it and neither let go nor been fenced",
        )
        need(line.epoch == self.row.epoch + 1, f"the row was at epoch {self.row.epoch}")

    def fenced(self, line: Line) -> None:
        """To a cluster: right after it was placed there. To nobody: from a suspected owner."""
        row, last = self.row, self.before
        if line.cluster:
            need(
                (last.kind, last.epoch, last.cluster) == ("placed", line.epoch, line.cluster),
                "it had not been placed there",
            )
            kept = self.placed.get(line.epoch)
            need(kept == line.cluster, f"the decision that is kept says {kept or 'nothing'}")
        else:
            need((last.kind, last.epoch) == ("suspected", row.epoch), "its owner was not suspected")
        after = needed(
            ledger.fence(
                self.setup,
                row,
                epoch=line.epoch,
                cluster=self.number(line.cluster),
                decision=(line.epoch, line.cluster),
                seen=(row.owner, row.session),
            ),
            f"a fence raises by one, the row was at epoch {row.epoch}",
        )
        need(not (taken := of_taking(self.setup, 0, row, after)), taken)
        self.row = after

    def claimed(self, line: Line) -> None:
        session = int(line.text.removeprefix("session "))
        after = ledger.claim(
            self.setup,
            self.row,
            epoch=line.epoch,
            cluster=self.number(line.cluster),
            session=session,
        )
        held = f"{self.owner() or 'nobody'} at epoch {self.row.epoch}, session {self.row.session}"
        self.row = needed(after, f"it belonged to {held}")
        self.claims.add((line.epoch, line.cluster, session))

    def ended(self, line: Line) -> None:
        need(line.epoch == self.row.epoch + 1, "an end raises the epoch by one")
        if line.kind == "succeeded" or (line.kind == "failed" and line.cluster):
            self.owned(line, claimed=True, raised=1)
        elif line.kind == "failed":
            need(not self.row.owner, f"{self.owner()} owned it, and did not say so")
        self.row = ledger.ended(self.setup, self.row, ENDS[line.kind])


def need(holds: bool, why: str) -> None:
    if not holds:
        raise Impossible(why)


def needed(row: Row | None, why: str) -> Row:
    if row is None:
        raise Impossible(why)
    return row


def impossible(history: History) -> list[str]:
    """What of this history the model does not allow; empty = nothing."""
    replay = Replay(Setup("recorded", classes=(history.mode,)), history.placed)
    for at, line in enumerate(history.lines, 1):
        try:
            replay.take(line)
        except Impossible as why:
            said = f"{line.kind} epoch {line.epoch} {line.cluster or 'nobody'}"
            return [f"{history.execution}: line {at}, {said}: {why}"]
    row, found = replay.row, list[str]()
    last = Last(row.epoch, replay.owner(), row.session, bool(row.released), row.want, row.phase)
    if last != history.last:
        found.append(
            f"{history.execution}: its history ends with {last}, its row is {history.last}"
        )
    order = (-1, -1)
    for one in history.made:
        said = f"{history.execution}: {one.node} of {one.cluster}, epoch {one.epoch}"
        if (one.epoch, one.cluster, one.session) not in replay.claims:
            found.append(f"{said}: session {one.session} had never claimed that")
        if (one.epoch, one.session) < order:
            found.append(f"{said}: committed after epoch and session {order}")
        order = max(order, (one.epoch, one.session))
    return found
