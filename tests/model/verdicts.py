"""What an agent does with the ledger's verdict on something it said: keep on, claim anew, give way.

Called by `outbox.py` once the event has left the outbox; `CONFLICT` and `FENCED` at one's own epoch
take along what was said afterwards, as that may have been made from what was refused.
"""

from typing import Any

from tests.model.claims import held
from tests.model.invariants import of_receipt
from tests.model.setup import Setup
from tests.model.state import NO_HOLD, NOTHING, A, Agent, B, Event, State, bag, changed
from tests.model.step import stopped


def heard(setup: Setup, s: State, at: int, event: Event, verdict: Any) -> tuple[State, str]:
    """What the agent does with the verdict on an event that it has settled."""
    agent, cluster = s.agents[at], setup.clusters[at]
    result, kept = verdict
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
