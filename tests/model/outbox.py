"""Outbox -> ledger: numbered events, a cursor a session, answers that may be lost, late copies.

Walked by `explore.py`; one event is one batch (a batch of many is the same events with nothing in
between). The numbers of a session count from 1, and only what is next is taken.
"""

from typing import Any

from tests.model import ledger
from tests.model.claims import held
from tests.model.invariants import of_owner, of_receipt, of_row
from tests.model.setup import Setup
from tests.model.state import (
    NO_HOLD,
    NOTHING,
    A,
    Agent,
    B,
    Event,
    Flight,
    State,
    bag,
    changed,
    without,
)
from tests.model.step import Step, Steps, left, spent, stopped


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
        heard = receipt(setup, taken, at, number, verdict)
        yield Step(("commits", at, *name, verdict[0]), heard[0], False, breach or heard[1])
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
    after, verdict, kept = ledger.commit(
        setup, row, event, cluster=flight.cluster, session=flight.session
    )
    breach = ""
    if after != row:
        breach = of_row(row, after, written_at=event.epoch) or of_owner(
            s, event, cluster=flight.cluster, session=flight.session, clusters=setup.clusters
        )
    if event.kind == "saved" and verdict == "FENCED" and row.released == event.epoch == row.epoch:
        breach = "I5 a checkpoint is refused, because RELEASED came before it"
    of = flight.cluster - 1
    own = changed(s.cursors[of], slot(setup, flight), flight.number)
    moved = s._replace(rows=changed(s.rows, event.run, after), cursors=changed(s.cursors, of, own))
    return moved, (verdict, kept), breach


def receipt(setup: Setup, s: State, at: int, number: int, verdict: Any) -> tuple[State, str]:
    """The agent hears the verdict on its oldest event and forgets it; -> state, breach."""
    agent, cluster = s.agents[at], setup.clusters[at]
    if agent.first != number or not agent.outbox:
        return s, ""
    event, (result, kept) = agent.outbox[0], verdict
    agent = agent._replace(outbox=agent.outbox[1:], first=agent.first + 1)
    row, hold = s.rows[event.run], agent.holds[event.run]
    run, epoch = event.run, event.epoch
    match result:
        case "FENCED" | "INCOMPLETE" if row.epoch == epoch:
            # Not ours what we took for ours, or not live: claim it again and begin from the answer.
            if hold.claimed == epoch:
                hold = NO_HOLD._replace(told=hold.told)
            if "fenced_drops" not in setup.off:
                later = [e for e in agent.outbox if (e.run, e.epoch) != (run, epoch)]
                agent = agent._replace(outbox=tuple(later))
            return held(s, at, holding(agent, run, hold)), ""
        case "FENCED" | "INCOMPLETE":
            pods = stopped(s.pods, cluster=cluster, run=run, upto=epoch)
            return held(s._replace(pods=pods), at, refused(agent, run, epoch)), ""
        case "CONFLICT":
            s, agent = replaced(setup, s, at, agent, event, kept)
            return held(s, at, agent), ""
        case _:
            pass
    breach = of_receipt(row, event)
    if event.kind in ("released", "no_room"):
        told = (epoch, "released", 0) if not hold.told or hold.told[0] <= epoch else hold.told
        hold = hold._replace(told=told, claimed=hold.claimed if hold.claimed != epoch else 0)
        agent = holding(agent, run, hold)
    elif event.kind in ("succeeded", "unreachable"):
        pods = stopped(s.pods, cluster=cluster, run=run, upto=epoch)
        s, agent = s._replace(pods=pods), refused(agent, run, epoch)
    return held(s, at, agent), breach


def holding(agent: Agent, run: int, hold: Any) -> Agent:
    return agent._replace(holds=changed(agent.holds, run, hold))


def refused(agent: Agent, run: int, epoch: int) -> Agent:
    """Not ours at this epoch, or over: it is not claimed again."""
    hold = agent.holds[run]
    told = (epoch, "refused", 0) if not hold.told or hold.told[0] <= epoch else hold.told
    if hold.claimed > epoch:
        return holding(agent, run, hold._replace(told=told))
    return holding(agent, run, NO_HOLD._replace(told=told, answer=hold.answer))


def replaced(
    setup: Setup, s: State, at: int, agent: Agent, event: Event, kept: Any
) -> tuple[State, Agent]:
    """The ledger kept another output: it wins, and what was made from ours is forgotten."""
    run, cluster = event.run, setup.clusters[at]
    hold = agent.holds[run]
    if hold.claimed != event.epoch:
        return s, agent
    known = changed(hold.known, event.node, kept)
    outbox = agent.outbox
    if event.node == A and "conflict_drops" not in setup.off:
        made = [e for e in outbox if stale(e, run, kept)]
        if made:
            known = changed(known, B, NOTHING)
            outbox = tuple(
                e for e in outbox if e not in made and not (e.kind == "succeeded" and e.run == run)
            )
        pods = bag(
            p for p in s.pods if (p.cluster, p.run, p.node) != (cluster, run, B) or p.reads == kept
        )
        s = s._replace(pods=pods)
    return s, holding(agent._replace(outbox=outbox), run, hold._replace(known=known))


def stale(event: Event, run: int, kept: Any) -> bool:
    return event.kind == "output" and (event.run, event.node) == (run, B) and event.reads != kept
