"""Agents as processes with sessions: start, crash, Hello, silence, the end of a lease, time.

Walked by `explore.py`; hands to `claims.py` what a session then claims. Time is abstract: `over`
says of which sessions the deadline and W have certainly passed.
"""

from tests.model.setup import Setup
from tests.model.state import NO_HOLD, Agent, State, bag, changed
from tests.model.step import BEYOND, Step, Steps, left, spent

IN_SESSION = ("ACTIVE", "RECONCILING", "DRAINING")
UP = (*IN_SESSION, "JOINING", "JEOPARDY")


def agent_steps(setup: Setup, s: State) -> Steps:
    for at, agent in enumerate(s.agents):
        cluster = setup.clusters[at]
        match agent.state:
            case "DOWN":
                yield from started(setup, s, at)
                continue
            case "GONE":
                continue
            case _:
                pass
        if left(s, "crash"):
            yield from crashed(s, at, agent)
        lost = s.live[cluster - 1] != agent.session
        superseded = setup.twins(cluster) and 0 < agent.session < s.sessions[cluster - 1]
        if superseded and (agent.state in (*IN_SESSION, "JEOPARDY")):
            down = Agent("DOWN", 0, (NO_HOLD,) * len(agent.holds), agent.outbox, 1)
            yield Step(("superseded process ends", at), agents(s, at, down))
        elif agent.state in IN_SESSION and lost:
            yield Step(("deadline noticed", at), agents(s, at, agent._replace(state="JEOPARDY")))
        elif agent.state in ("JOINING", "JEOPARDY"):
            if agent.session and not lost:
                yield Step(("renewed", at), agents(s, at, agent._replace(state="ACTIVE")))
            else:
                yield hello(setup, s, at, agent)
        if agent.state == "ACTIVE" and left(s, "cut"):
            after = agents(s, at, agent._replace(state="JEOPARDY"))
            yield Step(("cut off", at), spent(after, "cut"), True)
        if agent.state == "ACTIVE" and left(s, "drain"):
            after = agents(s, at, agent._replace(state="DRAINING"))
            yield Step(("asked to stop", at), spent(after, "drain"), True)
        if agent.state == "DRAINING":
            yield from leaving(setup, s, at, agent)


def agents(s: State, at: int, agent: Agent) -> State:
    return s._replace(agents=changed(s.agents, at, agent))


def started(setup: Setup, s: State, at: int) -> Steps:
    same = [other for other, cluster in enumerate(setup.clusters) if cluster == setup.clusters[at]]
    new = agents(s, at, s.agents[at]._replace(state="JOINING"))
    if not any(s.agents[other].state in UP for other in same):
        if all(other >= at or s.agents[other].state != "DOWN" for other in same):
            yield Step(("process starts", at), new)
    elif left(s, "twin"):
        yield Step(("a second process starts", at), spent(new, "twin"), True)


def crashed(s: State, at: int, agent: Agent) -> Steps:
    """Memory is gone; the outbox and the attempts are not."""
    down = Agent("DOWN", 0, (NO_HOLD,) * len(agent.holds), agent.outbox, 1)
    yield Step(("crash", at), spent(agents(s, at, down), "crash"), True)
    sent = agent.session and any(flight.event in agent.outbox[-1:] for flight in s.flights)
    if left(s, "torn") and agent.outbox and not sent and not below_cursor(s, agent):
        after = agents(s, at, down._replace(outbox=agent.outbox[:-1]))
        after = spent(spent(after, "torn"), "crash")
        yield Step(("crash; the last event was not on disk yet", at), after, True)


def below_cursor(s: State, agent: Agent) -> bool:
    """The ledger has the agent's last event, so it must have been on disk."""
    number = agent.first + len(agent.outbox) - 1
    return any(
        agent.session and len(own) >= agent.session and own[agent.session - 1] >= number
        for own in s.cursors
    )


def hello(setup: Setup, s: State, at: int, agent: Agent) -> Step:
    """A new session, with the next cluster epoch; everything held waits for its verdict."""
    of = setup.clusters[at] - 1
    session = s.sessions[of] + 1
    if session > setup.sessions:
        return BEYOND
    joined = agent._replace(
        state="RECONCILING", session=session, holds=(NO_HOLD,) * len(agent.holds)
    )
    if "adopt_after" in setup.off:
        # As if what is found running were one's own, before the ledger has said so.
        s = s._replace(
            pods=bag(
                pod._replace(armed=session) if pod.cluster == of + 1 and pod.armed else pod
                for pod in s.pods
            )
        )
    s = s._replace(
        sessions=changed(s.sessions, of, session),
        live=changed(s.live, of, session),
        cursors=changed(s.cursors, of, (*s.cursors[of], 0)),
    )
    return Step(("Hello", at, "session", session), agents(s, at, joined))


def leaving(setup: Setup, s: State, at: int, agent: Agent) -> Steps:
    of = setup.clusters[at] - 1
    pods = any(pod.cluster == of + 1 for pod in s.pods)
    holds = any(hold.claimed or hold.answer for hold in agent.holds)
    if (pods or holds or agent.outbox) and "drain_empty" not in setup.off:
        return
    breach = "DRAIN an agent leaves while it still holds something" if pods or holds else ""
    gone = Agent("GONE", 0, (NO_HOLD,) * len(agent.holds), agent.outbox, 1)
    after = agents(s._replace(live=changed(s.live, of, 0)), at, gone)
    yield Step(("leaves", at), after, False, breach)


def lease_steps(setup: Setup, s: State) -> Steps:
    exclusive = "exclusive" in setup.classes
    for cluster in setup.numbers:
        of = cluster - 1
        session = s.live[of]
        if session:
            alive = any(
                setup.clusters[at] == cluster
                and agent.session == session
                and agent.state in IN_SESSION
                for at, agent in enumerate(s.agents)
            )
            ended = s._replace(live=changed(s.live, of, 0))
            if not alive:
                yield Step(("lease ends", cluster), ended)
            elif left(s, "pause"):
                yield Step(
                    ("lease ends, its agent is paused", cluster), spent(ended, "pause"), True
                )
        if exclusive:
            past = session - 1 if session else s.sessions[of]
            if past > s.over[of]:
                pods = tuple(
                    pod
                    for pod in s.pods
                    if pod.cluster != cluster or not pod.armed or pod.armed > past
                )
                after = s._replace(over=changed(s.over, of, past), pods=pods)
                yield Step(("deadline + W pass, timers fire", cluster, "session", past), after)
