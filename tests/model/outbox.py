"""Outbox -> ledger: numbered events, a cursor a session, answers that may be lost, late copies.

Walked by `explore.py`; a batch is the oldest event, or all there are, in one transaction. Numbers
count from 1 in each session, and only what is next is taken. Hands answers to `verdicts.py`.
"""

from typing import Any

from tests.model import ledger
from tests.model.claims import held
from tests.model.invariants import of_owner, of_row
from tests.model.setup import Setup
from tests.model.state import (
    NOTHING,
    TERMINAL,
    Event,
    Flight,
    State,
    bag,
    changed,
    without,
)
from tests.model.step import Step, Steps, left, spent
from tests.model.verdicts import heard


def outbox_steps(setup: Setup, s: State) -> Steps:
    for at, agent in enumerate(s.agents):
        if agent.state not in ("ACTIVE", "DRAINING") or not agent.outbox:
            continue
        cluster = setup.clusters[at]
        event, number = agent.outbox[0], agent.first
        own = Flight(cluster, agent.session, number, event, False)
        taken, verdict, breach = record(setup, s, own)
        name = (event.kind, "run", event.run, "node", "AB"[event.node], "epoch", event.epoch)
        if verdict == "GAP":
            breach = "I8 the ledger waits for an event that its agent no longer has"
            yield Step(("commits", at, *name, "GAP"), s, False, breach)
            continue
        after, lost = receipt(setup, taken, at, number, verdict)
        yield Step(("commits", at, *name, verdict[0]), after, False, breach or lost)
        if len(agent.outbox) > 1:
            yield batched(setup, s, at)
        if left(s, "unanswered") and cursor(setup, taken, own) > cursor(setup, s, own):
            after = spent(taken, "unanswered")
            yield Step(("commits, answer lost", at, *name, verdict[0]), after, True, breach)
        if left(s, "relay") and own not in s.flights:
            after = spent(s._replace(flights=bag((*s.flights, own))), "relay")
            yield Step(("a second router has a copy", at, *name), after, True)
        if left(s, "early") and len(agent.outbox) > 1:
            next_ = Flight(cluster, agent.session, number + 1, agent.outbox[1], True)
            after = spent(s._replace(flights=bag((*s.flights, next_))), "early")
            yield Step(("sends the next batch before the answer", at), after, True)
    yield from flight_steps(setup, s)


def batched(setup: Setup, s: State, at: int) -> Step:
    """All of the outbox in one transaction. What comes after an objection may have been made from
    what was refused, so nothing more of that run is taken."""
    agent, cluster = s.agents[at], setup.clusters[at]
    verdicts: list[tuple[Event, Any]] = []
    objected: set[int] = set()
    broken = ""
    for number, event in enumerate(agent.outbox, agent.first):
        flight = Flight(cluster, agent.session, number, event, False)
        if event.run in objected and "batch_stops" not in setup.off:
            s, verdict = advanced(setup, s, flight), ("INCOMPLETE", NOTHING)
        else:
            s, verdict, breach = record(setup, s, flight)
            broken = broken or breach
        verdicts.append((event, verdict))
        if verdict[0] not in ("COMMITTED", "ALREADY"):
            objected.add(event.run)
    settled = agent._replace(outbox=(), first=agent.first + len(verdicts))
    s = held(s, at, settled)
    for event, verdict in verdicts:
        s, breach = heard(setup, s, at, event, verdict)
        broken = broken or breach
    what = ("commits its whole outbox", at, *(verdict[0] for _, verdict in verdicts))
    return Step(what, s, False, broken)


def flight_steps(setup: Setup, s: State) -> Steps:
    for flight in sorted(set(s.flights)):
        taken, verdict, breach = record(setup, s, flight)
        taken = taken._replace(flights=without(s.flights, flight))
        if flight.heard and verdict != "GAP":
            # The receipt is a cursor: it acknowledges everything up to it.
            for at, agent in enumerate(s.agents):
                if setup.clusters[at] == flight.cluster and agent.session == flight.session:
                    for number in range(agent.first, flight.number + 1):
                        taken, lost = receipt(setup, taken, at, number, ("COMMITTED", NOTHING))
                        breach = breach or lost
        said = verdict if verdict == "GAP" else verdict[0]
        what = ("a late batch arrives", flight.cluster, "session", flight.session)
        yield Step((*what, "number", flight.number, flight.event.kind, said), taken, False, breach)


def slot(setup: Setup, flight: Flight) -> int:
    return 0 if "cursor_own" in setup.off else flight.session - 1


def cursor(setup: Setup, s: State, flight: Flight) -> int:
    return s.cursors[flight.cluster - 1][slot(setup, flight)]


def record(setup: Setup, s: State, flight: Flight) -> tuple[State, Any, str]:
    """One transaction: cursor, fence, row. -> state, (verdict, kept) or GAP, breach."""
    event, at = flight.event, cursor(setup, s, flight)
    row = s.rows[event.run]
    if flight.number > at + 1 and "gap" not in setup.off:
        return s, "GAP", ""
    if flight.number <= at:
        return s, ledger.repeated(row, event), ""
    if row.epoch < event.epoch and row.phase not in TERMINAL and "restore_raises" not in setup.off:
        raised = ledger.above(row, event.epoch)
        s = s._replace(rows=changed(s.rows, event.run, raised))
        return advanced(setup, s, flight), ("FENCED", NOTHING), of_row(row, raised)
    after, verdict, kept = ledger.commit(
        setup, row, event, cluster=flight.cluster, session=flight.session
    )
    breach = ""
    if after != row:
        breach = of_row(row, after, written_at=event.epoch) or of_owner(
            s, event, cluster=flight.cluster, session=flight.session, clusters=setup.clusters
        )
    released = row.released == event.epoch == row.epoch
    newest = flight.session == s.sessions[flight.cluster - 1]
    if event.kind == "saved" and verdict == "FENCED" and released and newest:
        breach = "I5 a checkpoint is refused, because RELEASED came before it"
    moved = s._replace(rows=changed(s.rows, event.run, after))
    return advanced(setup, moved, flight), (verdict, kept), breach


def advanced(setup: Setup, s: State, flight: Flight) -> State:
    """The cursor stands at this event, wherever it stood before."""
    of = flight.cluster - 1
    at = max(flight.number, cursor(setup, s, flight))
    own = changed(s.cursors[of], slot(setup, flight), at)
    return s._replace(cursors=changed(s.cursors, of, own))


def receipt(setup: Setup, s: State, at: int, number: int, verdict: Any) -> tuple[State, str]:
    """The agent hears the verdict on its oldest event and forgets it; -> state, breach."""
    agent = s.agents[at]
    if agent.first != number or not agent.outbox:
        return s, ""
    settled = agent._replace(outbox=agent.outbox[1:], first=agent.first + 1)
    return heard(setup, held(s, at, settled), at, agent.outbox[0], verdict)
