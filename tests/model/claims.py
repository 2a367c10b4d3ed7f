"""How an agent comes to hold a run: assignments pushed to it, Claim, the answer, what it drops.

Walked by `explore.py`; the SQL half is `ledger.claim`, the answer is read in a step of its own, so
that anything may happen in between. Hands to `work.py`.
"""

from typing import Any

from tests.model import ledger
from tests.model.invariants import of_row
from tests.model.setup import Setup
from tests.model.state import (
    NO_HOLD,
    NOTHING,
    TERMINAL,
    A,
    Agent,
    B,
    Hold,
    Pod,
    State,
    bag,
    changed,
)
from tests.model.step import Step, Steps, stopped

CLAIMING = ("RECONCILING", "ACTIVE")


def claim_steps(setup: Setup, s: State) -> Steps:
    for at, agent in enumerate(s.agents):
        if agent.state not in ("RECONCILING", "ACTIVE", "DRAINING"):
            continue
        busy = False
        for run, hold in enumerate(agent.holds):
            wish = wanted(setup, s, at, run)
            busy = busy or bool(hold.answer) or wish > 0
            if wish and not hold.answer:
                yield asked(setup, s, at, run, wish)
            if hold.answer:
                yield answered(setup, s, at, run)
            elif agent.state != "RECONCILING" and not hold.claimed and "orphans" not in setup.off:
                yield from orphans(setup, s, at, run)
            if agent.session == s.live[setup.clusters[at] - 1]:
                yield from pushed(setup, s, at, run)
        if agent.state == "RECONCILING" and not busy:
            yield Step(("reconciled, ACTIVE", at), held(s, at, reconciled(setup, agent)))


def held(s: State, at: int, agent: Agent) -> State:
    return s._replace(agents=changed(s.agents, at, agent))


def reconciled(setup: Setup, agent: Agent) -> Agent:
    """Events of what is not ours any more are dropped; the rest counts from 1 again."""
    kept = tuple(one for one in agent.outbox if agent.holds[one.run].claimed == one.epoch)
    first = agent.first if "numbers_anew" in setup.off else 1
    return agent._replace(state="ACTIVE", outbox=kept, first=first)


def wanted(setup: Setup, s: State, at: int, run: int) -> int:
    """The epoch to claim now, 0 = none."""
    agent, cluster = s.agents[at], setup.clusters[at]
    hold = agent.holds[run]
    mine = [pod.epoch for pod in s.pods if pod.cluster == cluster and pod.run == run]
    last = [e.epoch for e in agent.outbox if e.run == run and e.kind in ENDS]
    if agent.state == "RECONCILING":
        newest = max([*mine, *(e.epoch for e in agent.outbox if e.run == run)], default=0)
        return newest if newest != hold.claimed else 0
    if agent.state == "DRAINING" and "drain_claims" not in setup.off:
        return 0
    if hold.told and hold.told[1] in ("run", "quiesce"):
        epoch = hold.told[0]
        return epoch if hold.claimed < epoch and epoch not in last else 0
    if mine and not hold.claimed and not last:
        refused = hold.told and hold.told[0] >= max(mine)
        return 0 if refused else max(mine)
    return 0


ENDS = ("released", "no_room", "unreachable", "succeeded")


def orphans(setup: Setup, s: State, at: int, run: int) -> Steps:
    """Attempts of an epoch that was refused or let go: whoever started them, they are deleted."""
    cluster, told = setup.clusters[at], s.agents[at].holds[run].told
    if told and told[1] in ("refused", "released"):
        pods = stopped(s.pods, cluster=cluster, run=run, upto=told[0])
        if pods != s.pods:
            yield Step(("deletes orphans", at, "run", run), s._replace(pods=pods))


def asked(setup: Setup, s: State, at: int, run: int, epoch: int) -> Step:
    agent, cluster = s.agents[at], setup.clusters[at]
    hold, row = agent.holds[run], s.rows[run]
    if "claim_first" in setup.off and agent.state == "ACTIVE":
        after = agent._replace(holds=changed(agent.holds, run, hold._replace(claimed=epoch)))
        return Step(("goes on WITHOUT a Claim", at, "run", run, "epoch", epoch), held(s, at, after))
    raised = ledger.claim(setup, row, epoch=epoch, cluster=cluster, session=agent.session)
    breach = ""
    newest = agent.session == s.sessions[cluster - 1]
    if raised is None:
        over = row.released or row.phase in TERMINAL
        if newest and not over and (row.epoch, row.owner) == (epoch, cluster):
            breach = "CLAIM the owner's newest session is refused"
        answer = (epoch, False, NOTHING, NOTHING, NOTHING, 0)
    else:
        shows = "claim_shows" not in setup.off
        a, b = (ledger.live(raised, node) if shows else NOTHING for node in (A, B))
        opened = 0 if "claim_gates" in setup.off else raised.opened
        answer = (epoch, True, a, b, raised.outputs[B].reads if b else NOTHING, opened)
        breach = of_row(row, raised)
        if agent.state == "DRAINING":
            breach = "DRAIN a draining agent claims new work"
    after = agent._replace(holds=changed(agent.holds, run, hold._replace(answer=answer)))
    s = held(s._replace(rows=changed(s.rows, run, raised or row)), at, after)
    said = "granted" if raised else "FENCED"
    return Step(("Claim", at, "run", run, "epoch", epoch, said), s, False, breach)


def answered(setup: Setup, s: State, at: int, run: int) -> Step:
    agent, cluster = s.agents[at], setup.clusters[at]
    hold = agent.holds[run]
    epoch, granted, a, b, reads, opened = hold.answer
    if not granted:
        told = hold.told
        if told and told[0] <= epoch:
            told = (told[0], "refused", 0)
        outbox = tuple(e for e in agent.outbox if e.run != run or e.epoch > epoch)
        if agent.state != "RECONCILING":
            outbox = agent.outbox
        after = agent._replace(
            holds=changed(agent.holds, run, NO_HOLD._replace(told=told)), outbox=outbox
        )
        pods = stopped(s.pods, cluster=cluster, run=run, upto=epoch)
        what = ("learns it is fenced", at, "run", run, "epoch", epoch)
        return Step(what, held(s._replace(pods=pods), at, after))
    for event in agent.outbox:
        if event.kind == "output" and (event.run, event.epoch) == (run, epoch):
            if event.node == A:
                a = event.value
            else:
                b, reads = event.value, event.reads
    if b and reads != a and "reuse_digest" not in setup.off:
        b = NOTHING
    kept: list[Pod] = []
    for pod in s.pods:
        if pod.cluster == cluster and pod.run == run:
            stale = pod.node == B and pod.reads != a and "reuse_digest" not in setup.off
            if pod.epoch < epoch or stale or (a, b)[pod.node]:
                continue
            if 0 < pod.armed < agent.session:
                pod = pod._replace(armed=agent.session)
        kept.append(pod)
    fresh = Hold(epoch, hold.told, NOTHING, (a, b), opened)
    after = agent._replace(holds=changed(agent.holds, run, fresh))
    what = ("takes up what Claim answered", at, "run", run, "epoch", epoch)
    return Step(what, held(s._replace(pods=bag(kept)), at, after))


def pushed(setup: Setup, s: State, at: int, run: int) -> Steps:
    """The key as it is now reaches the agent; one that names another cluster only takes away."""
    agent, cluster, key = s.agents[at], setup.clusters[at], s.keys[run]
    hold = agent.holds[run]
    mine = [pod for pod in s.pods if pod.cluster == cluster and pod.run == run]
    if not key:
        # Silence kills nothing (etcd may have been wiped): the ledger is asked.
        if hold.claimed and hold.told and agent.state == "ACTIVE":
            lost = hold._replace(told=NOTHING, claimed=0)
            after = agent._replace(holds=changed(agent.holds, run, lost))
            yield Step(("no key stands for it, asks again", at, "run", run), held(s, at, after))
        return
    below = stopped(s.pods, cluster=cluster, run=run, upto=key.epoch - 1)
    if key.cluster == cluster:
        if not news(hold.told, (key.epoch, key.want, key.gate)):
            return
        stays = hold.claimed if hold.claimed == key.epoch and key.want != "cancel" else 0
        fresh = Hold(
            stays,
            (key.epoch, key.want, key.gate),
            hold.answer if hold.answer and hold.answer[0] >= key.epoch else NOTHING,
            hold.known if stays else (NOTHING, NOTHING),
            hold.opened if stays else 0,
        )
        upto = key.epoch if key.want == "cancel" else key.epoch - 1
        pods = stopped(s.pods, cluster=cluster, run=run, upto=upto)
        after = agent._replace(holds=changed(agent.holds, run, fresh))
        what = ("is told", at, "run", run, "epoch", key.epoch, key.want, "gate", key.gate)
        yield Step(what, held(s._replace(pods=pods), at, after))
    elif 0 < hold.claimed < key.epoch or any(pod.epoch < key.epoch for pod in mine):
        after = agent._replace(holds=changed(agent.holds, run, NO_HOLD))
        what = ("is told it belongs to another", at, "run", run, "epoch", key.epoch)
        yield Step(what, held(s._replace(pods=below), at, after))


def news(told: tuple[Any, ...], key: tuple[Any, ...]) -> bool:
    if not told or told[0] < key[0]:
        return True
    if told[0] > key[0] or told[1] == "refused":
        return False
    if told[1] == "released" and key[1] != "cancel":
        return False
    return told != key
