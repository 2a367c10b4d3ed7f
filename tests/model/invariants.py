"""What must never be: judged on a state, on a change of a row, and on a step of an agent.

Called by `explore.py` for every new state and by the action files for what only a step shows; each
answer begins with the name of its invariant.
"""

from tests.model.ledger import live
from tests.model.setup import Setup
from tests.model.state import NOTHING, TERMINAL, A, B, Event, Row, State
from tests.model.step import AT

NAMES = {
    "I1": "a run's epoch never decreases, and every end raises it",
    "I2": "one live output a node; only the owner's newest session writes",
    "I3": "no write of a past epoch, or after the end, changes a row",
    "I4": "assigned after the fence, started after the Claim",
    "I5": "what is committed reaches the next owner: outputs and checkpoints",
    "I6": "two attempts of an exclusive node never run at once",
    "I7": "no attempt runs on for ever: every pod is claimed or deleted",
    "I8": "what was acknowledged is in the ledger; every run can still finish",
    "I9": "nothing outside the allowed regions",
    "I10": "a live output was made from the live outputs",
    "CLAIM": "the owner's newest session is not refused",
    "PINNED": "pinned work leaves its cluster only when that lets go or an operator says so",
    "HOLD": "no takeover begins while most clusters are gone, before hold_max",
    "DRAIN": "a draining agent takes nothing new and leaves with empty hands",
    "QUIESCE": "an owner is asked to let go only of what the plan found with it",
    "GATE": "a node behind a gate starts after it was opened",
    "KEY": "no put or delete takes a newer assignment's place",
}
"""I7 and the second half of I8 are judged over the whole graph: a path without faults must lead
from every state to one where all runs have ended and no attempt is left."""


def of_state(setup: Setup, s: State) -> str:
    for run, row in enumerate(s.rows):
        key = s.keys[run]
        restored = setup.restored(s.faults[AT["restore"]])
        if key and key.epoch > row.epoch and not restored:
            return f"I4 run {run} is assigned at epoch {key.epoch}, fenced to {row.epoch} only"
        a, b = row.outputs
        # What a restored backup has lost is made again: alike, if its task is deterministic.
        if a and b and a.live and b.live and b.reads != a.value and not restored:
            return f"I10 B of run {run} was made from another A than the live one"
        if row.phase == "SUCCEEDED" and not (live(row, A) and live(row, B)):
            return f"I8 run {run} succeeded without all its outputs"
        if setup.classes[run] == "exclusive":
            nodes = [pod.node for pod in s.pods if pod.run == run]
            if len(nodes) != len(set(nodes)):
                return f"I6 two attempts of one node of run {run} are running"
        if setup.allowed is not None:
            if row.owner and not setup.allows(row.owner):
                return f"I9 run {run} was placed in cluster {row.owner}, which is not allowed"
            for pod in s.pods:
                if not setup.allows(pod.cluster):
                    return f"I9 run {pod.run} runs in cluster {pod.cluster}"
    return ""


def of_row(before: Row, after: Row, *, written_at: int | None = None) -> str:
    """`written_at`: the epoch that an agent's write carried."""
    if before == after:
        return ""
    if after.epoch < before.epoch:
        return "I1 the epoch decreased"
    if before.phase in TERMINAL:
        return "I3 a row changed after the run's end"
    if written_at is not None and written_at != before.epoch:
        return f"I3 a write of epoch {written_at} was accepted at epoch {before.epoch}"
    if after.phase in TERMINAL and after.epoch == before.epoch:
        return "I1 the end did not raise the epoch"
    return ""


def of_owner(
    s: State, event: Event, *, cluster: int, session: int, clusters: tuple[int, ...]
) -> str:
    """A write was accepted: is it a former session's, while a later one holds the run?"""
    for at, agent in enumerate(s.agents):
        later = clusters[at] == cluster and agent.session > session
        if later and agent.holds[event.run].claimed == event.epoch:
            return "I2 a former session writes although a later one has claimed the run"
    return ""


def of_taking(setup: Setup, run: int, before: Row, after: Row) -> str:
    """An automatic fence took a run from an owner that had claimed it."""
    if setup.classes[run] == "pinned" and before != after and before.session:
        return "PINNED a pinned run was taken from its owner"
    return ""


def of_start(row: Row, node: int, *, epoch: int, cluster: int) -> str:
    """User code starts. A row above `epoch` says nothing any more: the fence may come later."""
    if row.epoch < epoch:
        return "I4 user code starts before its fence"
    if row.epoch > epoch or row.released:
        return ""
    if row.owner != cluster or not row.session:
        return "I4 user code starts without a Claim"
    out = row.outputs[node]
    if out and out.live and out.epoch < epoch:
        return "I5 a node starts again although its output is committed"
    return ""


def of_receipt(row: Row, event: Event) -> str:
    """An agent forgets this event, because the ledger said it is recorded."""
    if row.epoch > event.epoch:
        return ""
    match event.kind:
        case "output":
            kept = row.outputs[event.node]
            there = kept != NOTHING and kept.value == event.value
        case "saved":
            there = row.saved[event.node] >= event.epoch
        case "released" | "no_room":
            there = row.released == event.epoch
        case _:
            there = row.phase in TERMINAL
    return "" if there else f"I8 an acknowledged event ({event.kind}) is not in the ledger"
