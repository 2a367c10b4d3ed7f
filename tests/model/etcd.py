"""etcd's side: one key a run, compared before every put and delete; late copies of operations.

Called by the stories and the sweeper; walked by `explore.py` for what arrives late. Nothing here is
believed: losing all of it costs time, not facts.
"""

from typing import Any

from tests.model import ledger
from tests.model.invariants import of_row, of_taking
from tests.model.setup import Setup
from tests.model.state import LEVEL, NOTHING, TERMINAL, Key, Late, Row, State, bag, changed, without
from tests.model.step import Step, Steps


def merged(setup: Setup, stored: Any, own: Key) -> Any:
    """What stands there after a put: never an older epoch; within one, levels only rise."""
    if not stored or stored.epoch < own.epoch:
        return own
    if "put_compare" in setup.off:
        return own
    if stored.epoch > own.epoch or stored.cluster != own.cluster:
        return stored
    want = (
        own.want if "want_rises" in setup.off else max(stored.want, own.want, key=LEVEL.__getitem__)
    )
    gate = own.gate if "gate_rises" in setup.off else max(stored.gate, own.gate)
    return own._replace(want=want, gate=gate)


def put(setup: Setup, s: State, run: int, own: Key) -> State:
    return s._replace(keys=changed(s.keys, run, merged(setup, s.keys[run], own)))


def lowered(s: State, after: State, run: int) -> str:
    """Has a write taken a newer assignment's place?"""
    before, now = s.keys[run], after.keys[run]
    if before and now and now.epoch < before.epoch:
        return f"KEY a put of epoch {now.epoch} replaces epoch {before.epoch}"
    return ""


def delete(setup: Setup, s: State, run: int, epoch: int) -> tuple[State, str]:
    """-> state, breach."""
    stored = s.keys[run]
    if not stored:
        return s, ""
    if stored.epoch > epoch:
        if "delete_compare" not in setup.off:
            return s, ""
        gone = s._replace(keys=changed(s.keys, run, NOTHING))
        return gone, f"KEY a delete of epoch {epoch} removes epoch {stored.epoch}"
    return s._replace(keys=changed(s.keys, run, NOTHING)), ""


def declare(setup: Setup, s: State, run: int, epoch: int) -> State:
    """Somebody else has decided meanwhile: then what is live is theirs to judge."""
    row = s.rows[run]
    if row.epoch != epoch or row.phase in TERMINAL or row.owner:
        return s
    return s._replace(rows=changed(s.rows, run, ledger.declared(setup, row, s.lost)))


def late_steps(setup: Setup, s: State) -> Steps:
    for late in sorted(set(s.late)):
        rest = s._replace(late=without(s.late, late))
        what = ("late", late.kind, "run", late.run, "epoch", late.epoch)
        match late.kind:
            case "put":
                key = Key(late.epoch, late.cluster, late.want, late.session)
                after = put(setup, rest, late.run, key)
                yield Step((*what, late.want), after, False, lowered(s, after, late.run))
            case "delete":
                after, breach = delete(setup, rest, late.run, late.epoch)
                yield Step(what, after, False, breach)
            case "declare":
                yield Step(what, declare(setup, rest, late.run, late.epoch))
            case _:
                yield late_fence(setup, rest, late, what)


def late_fence(setup: Setup, s: State, late: Late, what: tuple[Any, ...]) -> Step:
    row: Row = s.rows[late.run]
    after = ledger.fence(
        setup,
        row,
        epoch=late.epoch,
        cluster=late.cluster,
        decision=late.decision,
        seen=(late.owner, late.session),
    )
    if after is None:
        return Step((*what, "refused"), s)
    breach = of_row(row, after)
    if late.decision[0] != "operator":
        breach = breach or of_taking(setup, late.run, row, after)
    return Step(what, s._replace(rows=changed(s.rows, late.run, after)), False, breach)


def later(s: State, late: Late) -> State:
    return s._replace(late=bag((*s.late, late)))
