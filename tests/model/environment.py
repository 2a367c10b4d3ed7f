"""The sweeper, which works from rows alone, and what the world does to us: losses, wipes, users.

Walked by `explore.py`; starts the stories of `dispatch.py`.
"""

from tests.model import etcd, ledger
from tests.model.dispatch import QUIET
from tests.model.invariants import of_row
from tests.model.setup import Setup, initial
from tests.model.state import (
    LEVEL,
    NO_HOLD,
    NOTHING,
    TERMINAL,
    Agent,
    Key,
    Late,
    Row,
    State,
    Story,
    Value,
    bag,
    changed,
    without,
)
from tests.model.step import Step, Steps, left, spent
from tests.model.work import collect


def sweep_steps(setup: Setup, s: State) -> Steps:
    for run, row in enumerate(s.rows):
        if row.phase in TERMINAL:
            key = s.keys[run]
            if key and key.epoch <= row.epoch and not any(one.kind == "put" for one in s.late):
                after, _ = etcd.delete(setup, s, run, row.epoch)
                yield Step(("deletes the key of an ended run", run), after)
            continue
        busy = [one for one in s.stories if one.run == run]
        if row.phase in QUIET and not row.owner:
            if not busy:
                yield begin(s, Story("dispatch", run, "read"), "sweeper dispatches")
            elif left(s, "second") and len(busy) < setup.stories:
                step = begin(s, Story("dispatch", run, "read"), "a second dispatcher")
                yield step._replace(after=spent(step.after or s, "second"), fault=True)
        if not busy and row.owner and not row.session and "sweep_unclaimed" not in setup.off:
            story = Story("dispatch", run, "read")
            key = s.keys[run]
            if row.phase == "MOVING":
                pass
            elif not s.live[row.owner - 1] or not key or not told_by(key, row):
                yield begin(s, story, "T_claim is over")
            elif left(s, "slow"):
                step = begin(s, story, "T_claim is over, the agent only slow")
                yield step._replace(after=spent(step.after or s, "slow"), fault=True)
        if not busy and not row.owner and row.phase == "MOVING" and "sweep_moving" not in setup.off:
            yield begin(
                s, Story("place", run, "read", row.epoch), "sweeper places what is nobody's"
            )
        asked = row.owner and row.phase == "MOVING" and "sweep_quiesced" not in setup.off
        if not busy and asked:
            story = Story("migration", run, "ask", row.epoch, row.owner, row.owner)
            yield begin(s, story, "its owner was asked to let go, and no story waits")
        yield from keys(setup, s, run)


def told_by(key: Key, row: Row) -> bool:
    """After a restore the key of this epoch may name another cluster."""
    return key.epoch >= row.epoch and key.cluster == row.owner


def begin(s: State, story: Story, why: str) -> Step:
    return Step((why, "run", story.run), s._replace(stories=bag((*s.stories, story))))


def keys(setup: Setup, s: State, run: int) -> Steps:
    """Missing keys are written again: read now, put in a later step."""
    row, key = s.rows[run], s.keys[run]
    if "sweep_keys" in setup.off or not row.owner:
        return
    if key and key.epoch > row.epoch and "restore_raises" not in setup.off:
        raised = ledger.above(row, key.epoch)
        after = s._replace(rows=changed(s.rows, run, raised))
        yield Step(("finds a key above its row", "run", run), after, False, of_row(row, raised))
        return
    want = "run" if "keys_want" in setup.off else row.want
    # A key whose level lags behind the row's counts as missing.
    lags = key and key.epoch == row.epoch and (key.gate < row.gate or LEVEL[key.want] < LEVEL[want])
    if key and key.epoch >= row.epoch and not lags:
        return
    late = Late("put", run, row.epoch, row.owner, want, 0, row.gate)
    if late not in s.late:
        yield Step(("reads the row to write its key again", "run", run), etcd.later(s, late))


def world_steps(setup: Setup, s: State) -> Steps:
    if left(s, "dead"):
        for cluster in setup.numbers:
            yield from dies(setup, s, cluster)
    if left(s, "wipe"):
        none = s._replace(live=(0,) * len(s.live), keys=(NOTHING,) * len(s.keys))
        yield Step(("etcd loses everything",), spent(none, "wipe"), True)
    if left(s, "restore") and not any(row.phase in TERMINAL for row in s.rows):
        rows = initial(setup).rows
        # What is lost within an epoch, or was only refused, shows by no number: see ADR-0009.
        if all(
            now.session and now.epoch > then.epoch and key and key.epoch == now.epoch
            for now, then, key in zip(s.rows, rows, s.keys, strict=True)
        ):
            after = spent(s._replace(rows=rows), "restore")
            yield Step(("SQL is restored from its first backup",), after, True)
    if left(s, "lose"):
        for cluster in setup.numbers:
            lost: set[Value] = set()
            collect((s.rows, s.agents), lost)
            lost = {one for one in lost if one.cluster == cluster} | set(s.lost)
            if len(lost) > len(s.lost):
                after = spent(s._replace(lost=bag(lost)), "lose")
                yield Step(("the store of a region is lost", cluster), after, True)
    if left(s, "forgotten"):
        for story in sorted(set(s.stories)):
            after = spent(s._replace(stories=without(s.stories, story)), "forgotten")
            yield Step(("a story is forgotten", story.kind, "run", story.run), after, True)
    for run, row in enumerate(s.rows):
        if left(s, "cancel") and row.phase not in TERMINAL:
            ended = ledger.ended(setup, row, "ABORTED")
            after = s._replace(rows=changed(s.rows, run, ended))
            if row.owner:
                late = Late("put", run, ended.epoch, row.owner, "cancel", 0, row.gate)
                after = etcd.later(after, late)
            breach = "" if "terminal_raises" in setup.off else of_row(row, ended)
            yield Step(("a user cancels", "run", run), spent(after, "cancel"), True, breach)
        if left(s, "gate") and row.phase not in TERMINAL:
            raised = row._replace(gate=row.gate + 1, opened=1)
            opened = s._replace(rows=changed(s.rows, run, raised))
            yield Step(("a user opens the gate", "run", run), spent(opened, "gate"))


def dies(setup: Setup, s: State, cluster: int) -> Steps:
    here = [at for at, of in enumerate(setup.clusters) if of == cluster]
    if all(s.agents[at].state == "GONE" for at in here):
        return
    agents = list(s.agents)
    for at in here:
        agents[at] = Agent("GONE", 0, (NO_HOLD,) * len(s.rows), (), 1)
    pods = tuple(pod for pod in s.pods if pod.cluster != cluster)
    after = spent(s._replace(agents=tuple(agents), pods=pods), "dead")
    yield Step(("a cluster is lost for good", cluster), after, True)
