"""What an agent does with the ledger's verdict on something it said: keep on, claim anew, give way.

Called by `outbox.py` once the event has left the outbox; `CONFLICT` and `FENCED` at one's own epoch
take along what was said afterwards, as that may have been made from what was refused.
"""

from typing import Any

from tests.model.claims import held
from tests.model.invariants import of_receipt
from tests.model.setup import Setup
from tests.model.state import NO_HOLD, Agent, Event, State, changed
from tests.model.step import stopped


def heard(setup: Setup, s: State, at: int, event: Event, verdict: Any) -> tuple[State, str]:
    """What the agent does with the verdict on an event that it has settled."""
    agent, cluster = s.agents[at], setup.clusters[at]
    result, _ = verdict
    row, hold = s.rows[event.run], agent.holds[event.run]
    run, epoch = event.run, event.epoch
    match result:
        case "FENCED" | "INCOMPLETE" | "CONFLICT" if row.epoch == epoch:
            # Not ours what we took for ours, or another output is live: claim it again and begin
            # from the answer.
            if hold.claimed == epoch:
                hold = NO_HOLD._replace(told=hold.told)
            if "objection_drops" not in setup.off:
                later = [e for e in agent.outbox if (e.run, e.epoch) != (run, epoch)]
                agent = agent._replace(outbox=tuple(later))
            return held(s, at, holding(agent, run, hold)), ""
        case "FENCED" | "INCOMPLETE" | "CONFLICT":
            pods = stopped(s.pods, cluster=cluster, run=run, upto=epoch)
            return held(s._replace(pods=pods), at, refused(agent, run, epoch)), ""
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
