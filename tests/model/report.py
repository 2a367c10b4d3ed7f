"""Found -> words: a line of the table, a counterexample as a story, a JSON report.

Called by `__main__.py` and by the tests' failure messages.
"""

from typing import Any

from tests.model.explore import Found, steps
from tests.model.invariants import NAMES
from tests.model.mutations import Mutation
from tests.model.setup import RULES, Setup, initial
from tests.model.state import State

HEAD = f"{'scenario':<26}{'states':>9}{'transitions':>13}{'depth':>7}{'seconds':>9}  {'result':<28}"


def line(found: Found) -> str:
    seen = "complete" if found.complete else "partial"
    result = found.breach or f"{seen}, nothing broken"
    numbers = f"{found.states:>9}{found.transitions:>13}{found.depth:>7}{found.seconds:>9.1f}"
    return f"{found.setup.name:<26}{numbers}  {result:<28}"


def checked(setup: Setup) -> list[str]:
    """The invariants that this scenario can break at all."""
    names = ["I1", "I2", "I3", "I4", "I5", "I8", "I10", "CLAIM", "KEY"]
    names += ["I6"] if "exclusive" in setup.classes else []
    names += ["PINNED"] if "pinned" in setup.classes else []
    names += ["I7"] if setup.live else []
    names += ["I9"] if setup.allowed is not None else []
    names += ["HOLD"] if len(set(setup.clusters)) > 2 else []
    names += ["DRAIN"] if setup.faults.get("drain") else []
    names += ["GATE"] if setup.gated else []
    return [name for name in NAMES if name in names]


def as_json(found: Found, mutation: Mutation | None = None) -> dict[str, Any]:
    """`mutation`: the rule that was left out. `caught`: the named invariant broke; `why`: what
    holds instead of a rule without which nothing breaks."""
    left_out: dict[str, Any] = {}
    if mutation is not None:
        broke = found.breach.split(" ")[0]
        left_out = {
            "rule": mutation.rule,
            "rule_says": RULES[mutation.rule],
            "breaks": mutation.breaks,
            "caught": broke != "" and broke == mutation.breaks,
            "why": mutation.why,
        }
    return left_out | {
        "scenario": found.setup.name,
        "rules_off": sorted(found.setup.off),
        "states": found.states,
        "transitions": found.transitions,
        "depth": found.depth,
        "seconds": round(found.seconds, 2),
        "complete": found.complete,
        "breach": found.breach,
        "stuck": found.stuck,
        "invariants": checked(found.setup),
        "story": story(found) if found.breach else [],
    }


def story(found: Found) -> list[str]:
    """One line a step: what happened (! = a fault), and the world afterwards."""
    s: State = initial(found.setup)
    lines = [f"{'':5}{'at the beginning':<66} {world(found.setup, s)}"]
    for taken in found.path:
        step = steps(found.setup, s)[taken]
        assert step.after is not None
        s = step.after
        mark = "!" if step.fault else " "
        lines.append(f"  {mark}  {said(step.what):<66} {world(found.setup, s)}")
    return [*lines, f"     => {found.breach}"]


def said(what: tuple[Any, ...]) -> str:
    """`("crash", 0)` -> "agent 0: crash"."""
    verb, *rest = what
    if rest and isinstance(rest[0], int) and not str(verb).startswith(CLUSTERS):
        return f"agent {rest[0]}: {verb} {' '.join(map(str, rest[1:]))}".rstrip()
    return " ".join(map(str, what))


CLUSTERS = (
    "chooses", "suspected", "lease", "deadline +", "a late batch", "a cluster", "the store",
    "deletes the key", "migration ends: so",
)  # fmt: skip


def world(setup: Setup, s: State) -> str:
    parts: list[str] = []
    for run, row in enumerate(s.rows):
        outs = "".join(
            f" {'' if out.live else 'old '}{'AB'[node]}@{out.epoch}/C{out.value.cluster}"
            for node, out in enumerate(row.outputs)
            if out
        )
        owner = f"C{row.owner}.{row.session}" if row.owner else "nobody"
        parts.append(f"run {run}: epoch {row.epoch} {owner} {row.phase}{outs}")
        if key := s.keys[run]:
            parts.append(f"key {key.epoch}/C{key.cluster}/{key.want}")
    agents = ",".join(
        f"C{setup.clusters[at]}.{agent.session} {agent.state.lower()}"
        + (f"[{len(agent.outbox)}]" if agent.outbox else "")
        for at, agent in enumerate(s.agents)
    )
    pods = ",".join(f"C{pod.cluster}:{'AB'[pod.node]}@{pod.epoch}" for pod in s.pods)
    return " | ".join([*parts, agents, f"pods {pods or '-'}"])
