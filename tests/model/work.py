"""What an agent does with a run it holds: start, finish, stop, let go, end.

Walked by `explore.py`; everything it has to say goes to the outbox, which `outbox.py` empties.
"""

from typing import cast

from tests.model.claims import held
from tests.model.invariants import of_start
from tests.model.setup import Setup
from tests.model.state import (
    NO_HOLD,
    NOTHING,
    A,
    Agent,
    B,
    Event,
    Hold,
    Pod,
    State,
    Value,
    bag,
    changed,
    without,
)
from tests.model.step import AT, Step, Steps, left, spent, stopped

WORKING = ("ACTIVE", "JEOPARDY", "DRAINING")
LETTING_GO = ("released", "no_room", "unreachable")


def work_steps(setup: Setup, s: State) -> Steps:
    for at, agent in enumerate(s.agents):
        if agent.state in ("DOWN", "GONE"):
            continue
        for run, hold in enumerate(agent.holds):
            if not hold.claimed:
                continue
            gone = let_go(agent, run, hold.claimed)
            if gone and "released_last" not in setup.off:
                continue
            yield from finished(setup, s, at, run)
            if not told_otherwise(hold):
                yield from starts(setup, s, at, run)
                yield from ends(setup, s, at, run)
            if not gone:
                yield from releases(setup, s, at, run)


def let_go(agent: Agent, run: int, epoch: int) -> bool:
    return any(e.kind in LETTING_GO and (e.run, e.epoch) == (run, epoch) for e in agent.outbox)


def told_otherwise(hold: Hold) -> bool:
    return bool(hold.told) and hold.told[0] == hold.claimed and hold.told[1] != "run"


def free(setup: Setup, s: State, at: int, run: int) -> bool:
    """May exclusive work of this run be started or let go: is the predecessor certainly dead?"""
    if setup.classes[run] != "exclusive" or "predecessor" in setup.off:
        return True
    return s.over[setup.clusters[at] - 1] >= s.agents[at].session - 1


def starts(setup: Setup, s: State, at: int, run: int) -> Steps:
    agent, cluster = s.agents[at], setup.clusters[at]
    hold, exclusive = agent.holds[run], setup.classes[run] == "exclusive"
    a, b = hold.known
    if agent.state not in WORKING or not agent.session:
        return
    if exclusive:
        if agent.state == "JEOPARDY" or not free(setup, s, at, run):
            return
        if agent.session <= s.over[cluster - 1] and "lease_at_start" not in setup.off:
            return
    opened = hold.opened or (hold.told and hold.told[2])
    shut = setup.gated and not opened and "gate_waits" not in setup.off
    nodes = (A,) if shut else (A, B)
    zombie = agent.session < s.sessions[cluster - 1]
    for node in nodes:
        if hold.known[node] or (node == B and (not a or a in s.lost)) or (node == A and b):
            continue
        mine = [p for p in s.pods if (p.cluster, p.run, p.node) == (cluster, run, node)]
        if any(p.epoch == hold.claimed and (not zombie or p.agent == at + 1) for p in mine):
            continue
        breach = of_start(s.rows[run], node, epoch=hold.claimed, cluster=cluster)
        if setup.restored(s.faults[AT["restore"]]):
            breach = ""
        if setup.gated and node == B and not s.rows[run].opened:
            breach = "GATE B starts although its gate is closed"
        pod = Pod(
            cluster=cluster,
            run=run,
            node=node,
            epoch=hold.claimed,
            armed=agent.session if exclusive else 0,
            reads=a if node == B else NOTHING,
            value=fresh(s, run, node, epoch=hold.claimed, cluster=cluster),
            agent=at + 1 if setup.twins(cluster) else 0,
        )
        what = ("starts", at, "run", run, "node", "AB"[node], "epoch", hold.claimed)
        yield Step(what, s._replace(pods=bag((*s.pods, pod))), False, breach)


def fresh(s: State, run: int, node: int, *, epoch: int, cluster: int) -> Value:
    """A value that nothing in the world is, yet: two attempts never make the same."""
    there: set[Value] = set(s.lost)
    collect(s.rows, there)
    collect(s.agents, there)
    collect(s.pods, there)
    collect(s.flights, there)
    serial = 0
    while Value(run, node, epoch, cluster, serial) in there:
        serial += 1
    return Value(run, node, epoch, cluster, serial)


def collect(item: object, there: set[Value]) -> None:
    if isinstance(item, Value):
        there.add(item)
    elif isinstance(item, tuple):
        for one in cast(tuple[object, ...], item):
            collect(one, there)


def finished(setup: Setup, s: State, at: int, run: int) -> Steps:
    agent, cluster = s.agents[at], setup.clusters[at]
    hold = agent.holds[run]
    for pod in s.pods:
        if (pod.cluster, pod.run, pod.epoch) != (cluster, run, hold.claimed):
            continue
        rest = s._replace(pods=without(s.pods, pod))
        name = "AB"[pod.node]
        stale = pod.node == B and pod.reads != hold.known[A] and "reuse_digest" not in setup.off
        if stale or hold.known[pod.node] not in (NOTHING, pod.value):
            yield Step(("deletes a useless attempt", at, "run", run, "node", name), rest)
        elif not hold.known[pod.node]:
            event = Event("output", run, pod.node, pod.epoch, pod.value, pod.reads)
            known = changed(hold.known, pod.node, pod.value)
            after = said(agent, run, hold._replace(known=known), event)
            what = ("finishes", at, "run", run, "node", name, "epoch", pod.epoch)
            yield Step(what, held(rest, at, after))


def said(agent: Agent, run: int, hold: Hold, *events: Event) -> Agent:
    return agent._replace(holds=changed(agent.holds, run, hold), outbox=(*agent.outbox, *events))


def releases(setup: Setup, s: State, at: int, run: int) -> Steps:
    """Asked to by `want`, for want of room, or because it is to stop itself."""
    agent = s.agents[at]
    hold = agent.holds[run]
    if not free(setup, s, at, run):
        return
    if agent.state == "ACTIVE" and hold.told[:2] == (hold.claimed, "quiesce"):
        yield released(setup, s, at, run, "released")
    if agent.state == "ACTIVE" and left(s, "squeezed") and not told_otherwise(hold):
        step = released(setup, s, at, run, "no_room")
        if step.after:
            yield step._replace(after=spent(step.after, "squeezed"), fault=True)
    if agent.state == "DRAINING":
        yield released(setup, s, at, run, "no_room")


def released(setup: Setup, s: State, at: int, run: int, kind: str) -> Step:
    """Attempts are stopped; one that is asked to let go lets each save a checkpoint first."""
    agent, cluster = s.agents[at], setup.clusters[at]
    hold = agent.holds[run]
    epoch = hold.claimed
    events = [Event(kind, run, 0, epoch, NOTHING, NOTHING)]
    if agent.state == "DRAINING" or kind == "released":
        nodes = sorted(
            {p.node for p in s.pods if (p.cluster, p.run, p.epoch) == (cluster, run, epoch)}
        )
        saved = [Event("saved", run, node, epoch, NOTHING, NOTHING) for node in nodes]
        events = [*saved, *events] if "saved_first" not in setup.off else [*events, *saved]
    after = said(agent, run, NO_HOLD._replace(told=hold.told), *events)
    if "released_last" in setup.off:
        after = after._replace(holds=changed(after.holds, run, hold))
    pods = stopped(s.pods, cluster=cluster, run=run, upto=epoch)
    what = ("stops its attempts and lets go", at, "run", run, "epoch", epoch)
    return Step(what, held(s._replace(pods=pods), at, after))


def ends(setup: Setup, s: State, at: int, run: int) -> Steps:
    agent, cluster = s.agents[at], setup.clusters[at]
    hold = agent.holds[run]
    a, b = hold.known
    mine = any((p.cluster, p.run) == (cluster, run) for p in s.pods)
    unsent = [e for e in agent.outbox if e.run == run]
    unread = a and a in s.lost and not b and not mine and not unsent
    able = agent.state in ("ACTIVE", "DRAINING") and free(setup, s, at, run)
    if unread and able and "unreadable" not in setup.off:
        event = Event("unreachable", run, A, hold.claimed, a, NOTHING)
        after = said(agent, run, NO_HOLD._replace(told=hold.told), event)
        yield Step(("can't read A: UNREACHABLE", at, "run", run), held(s, at, after))
    if b and not any(e.kind == "succeeded" and e.epoch == hold.claimed for e in unsent):
        event = Event("succeeded", run, 0, hold.claimed, NOTHING, NOTHING)
        what = ("all done: SUCCEEDED to the outbox", at, "run", run)
        yield Step(what, held(s, at, said(agent, run, hold, event)))
