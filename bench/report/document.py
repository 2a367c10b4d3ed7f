"""Figures -> the report as Markdown, and how many violations stand in it. Pure.

Called by `__main__.py`; a part that was not measured is said to be missing, never left out.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bench.figures import percentile
from tests.e2e.faults.matrix import ROWS

STAGES = ("detect, fence to nobody", "place, fence", "assign, claim", "resume", "whole")


def document(figures: Mapping[str, Any], drawn: Mapping[str, str]) -> tuple[str, int]:
    found = list(violations(figures))
    lines = [
        "# Failure report", "",
        "Faults were injected into a real federation (etcd, Temporal, SQL, agents, tasks; three",
        "regions on one machine) and its history was checked afterwards. Written by `make report`.",
        "", *_about(figures), "", "## Result", "",
        f"**{len(found)} violations.**", *[f"* {text}" for text in found], "",
        *_totals(figures), "", *_losses(figures, drawn), *_planned(figures, drawn),
        *_zombies(figures, drawn), *_crowd(figures), *_flapping(figures), *_faults(figures),
        *_model(figures), *_mutations(figures), *_sceptic(),
    ]  # fmt: skip
    return "\n".join(lines) + "\n", len(found)


def violations(figures: Mapping[str, Any]) -> Iterator[str]:
    for part, said in figures.items():
        judged = said.get("judged", {})
        if judged.get("broken"):
            yield f"{part}: {judged['broken']}"
        if judged.get("doubled"):
            yield f"{part}: {judged['doubled']} results were committed twice"
        if judged.get("lost"):
            yield f"{part}: {judged['lost']} runs did not succeed ({judged['phases']})"
    for part in ("exclusive", "pods"):
        if overlaps := figures.get(part, {}).get("overlaps"):
            yield f"{part}: {overlaps} overlaps of two copies"
    if moved := figures.get("flapping", {}).get("elsewhere"):
        yield f"flapping: {moved} runs moved that were not on the flapping link"
    for test in figures.get("faults", {}).get("tests", ()):
        if test["outcome"] == "failed":
            yield f"{test['test']} failed"
    for scenario in figures.get("model", {}).get("scenarios", ()):
        if scenario["breach"] or scenario["stuck"]:
            yield f"model, {scenario['scenario']}: {scenario['breach'] or 'stuck'}"
    for guard in figures.get("mutations", {}).get("guards", ()):
        if not guard["caught_by"]:
            yield f"mutation {guard['name']} was not caught"


def _about(figures: Mapping[str, Any]) -> list[str]:
    rows = [(part, said["at"]["when"], said["at"]["commit"], f"{said['seconds']:.0f} s")
            for part, said in figures.items()]  # fmt: skip
    at = next(iter(figures.values()))["at"]
    machine = f"{at['cores']} cores, {at['machine']}, Python {at['python']}."
    return [machine, "", *table(("part", "measured", "commit", "took"), rows)]


def _totals(figures: Mapping[str, Any]) -> list[str]:
    judged = [said["judged"] for said in figures.values() if "judged" in said]
    injected = sum(said.get("injections", 0) for said in figures.values())
    injected += figures.get("flapping", {}).get("flaps", 0)
    return table(
        ("injections", "runs", "results committed", "committed twice", "runs lost"),
        [(str(injected), *(str(sum(one[key] for one in judged))
                           for key in ("runs", "outputs", "doubled", "lost")))],
    )  # fmt: skip


def _losses(figures: Mapping[str, Any], drawn: Mapping[str, str]) -> list[str]:
    said = figures.get("losses")
    if not said:
        return missing("A region killed", "losses")
    rows = [spread(stage, said["stages"][stage]) for stage in STAGES if said["stages"].get(stage)]
    return [
        "## A region killed", "",
        f"SIGKILL of the agent and all of its tasks, {said['injections']} times; sessions of 5 s "
        "(preset `lan`).", "",
        *table(SPREAD, rows), *picture(drawn, "losses"), "",
    ]  # fmt: skip


def _planned(figures: Mapping[str, Any], drawn: Mapping[str, str]) -> list[str]:
    said = figures.get("migrations")
    if not said:
        return missing("Planned moves", "migrations")
    return [
        "## Planned moves", "",
        f"One run with a checkpoint of 10 MB, moved {said['injections']} times from region to "
        "region. The pause is from its last step in one to its first step in the next.", "",
        *table(SPREAD, [spread("pause", said["pauses"])]), *picture(drawn, "migrations"), "",
    ]  # fmt: skip


def _zombies(figures: Mapping[str, Any], drawn: Mapping[str, str]) -> list[str]:
    lines: list[str] = []
    if said := figures.get("exclusive"):
        lines += [
            "## Exclusive work", "",
            f"Agents frozen and links cut {said['injections']} times while their tasks went on. "
            f"Overlaps: **{said['overlaps']}**.", "",
            *table(SPREAD, [spread("nobody at work", said["gaps"])]),
            *picture(drawn, "exclusive"), "",
        ]  # fmt: skip
    else:
        lines += missing("Exclusive work", "exclusive")
    said = figures.get("pods", {"unmeasured": "see `python -m bench.report --only pods`"})
    lines += ["## Exclusive work in pods", ""]
    if why := said.get("unmeasured"):
        lines += [f"Not measured: {why}.", ""]
    else:
        lines += [
            f"In real clusters, {said['injections']} times: the node of the pod was cut off, its "
            "region with the agent was, or its agent alone was. The task's own timer ends it; the "
            "next try waits for that. "
            f"Overlaps: **{said['overlaps']}**.", "",
            *table(SPREAD, [spread(f"nobody at work, {what} cut off", gaps)
                            for what, gaps in said["gaps"].items()]), "",
        ]  # fmt: skip
    if said := figures.get("cuts"):
        lines += [
            "## What a cut link wastes", "",
            f"Links cut {said['injections']} times under idempotent work, which goes on behind the "
            "cut and is done again elsewhere. What is wasted is bounded by the time to detect and "
            "to take over, not by the length of the run.", "",
            *table(SPREAD, [spread("two copies at work", said["double_seconds"]),
                            spread("done again, a run", said["repeated_seconds"])]), "",
        ]  # fmt: skip
    else:
        lines += missing("What a cut link wastes", "cuts")
    return lines


def _crowd(figures: Mapping[str, Any]) -> list[str]:
    said = figures.get("crowd")
    if not said:
        return missing("Many runs at once", "crowd")
    before, during = percentile(said["before"], 0.99), percentile(said["during"], 0.99)
    return [
        "## Many runs at once", "",
        f"A region with {said['runs']} runs killed: claimed elsewhere at {said['rate']:.0f} a "
        f"second, all after {said['whole_seconds']:.1f} s. Submits to a region that lives: p99 "
        f"{before:.3f} s before, {during:.3f} s meanwhile ({during / before:.1f} times).", "",
    ]  # fmt: skip


def _flapping(figures: Mapping[str, Any]) -> list[str]:
    said = figures.get("flapping")
    if not said:
        return missing("A link that flaps", "flapping")
    hourly = said["elsewhere"] * 3600 / said["seconds"]
    return [
        "## A link that flaps", "",
        f"Down for 4 s, up for 2 s, for {said['seconds']:.0f} s, with sessions of 2 s: "
        f"{said['flaps']} flaps, {said['sessions']} sessions ended, {said['failovers']} takeovers "
        f"of the runs that were there, {hourly:.0f} false ones an hour (runs moved that were not).",
        "",
    ]  # fmt: skip


def _faults(figures: Mapping[str, Any]) -> list[str]:
    said = figures.get("faults")
    if not said:
        return missing("The fault matrix", "faults")
    tests: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for test in said["tests"]:
        for row in test["rows"]:
            tests[row].append(test)
    rows = [(str(row.number), row.fault, row.holds, _outcome(row.unrun, tests[row.number]))
            for row in ROWS]  # fmt: skip
    return ["## The fault matrix", "", *table(("", "fault", "what has to hold", "seen"), rows), ""]


def _outcome(unrun: str, tests: Sequence[Mapping[str, Any]]) -> str:
    if unrun:
        return f"not run: {unrun}"
    if not tests:
        return "not run this time"
    counts = {word: sum(test["outcome"] == word for test in tests)
              for word in ("passed", "failed", "skipped")}  # fmt: skip
    return ", ".join(f"{count} {word}" for word, count in counts.items() if count)


def _model(figures: Mapping[str, Any]) -> list[str]:
    said = figures.get("model")
    if not said:
        return missing("The model", "model")
    whole = [one for one in said["scenarios"] if one["complete"]]
    states = sum(one["states"] for one in said["scenarios"])
    rules = said["rules"]
    caught = [one for one in rules if one["breach"]]
    return [
        "## The model", "",
        f"`python -m tests.model` explored {len(said['scenarios'])} scenarios of the protocol, "
        f"{len(whole)} of them completely: {states:,} states, none of which breaks an invariant. "
        f"Of {len(rules)} rules of the protocol, {len(caught)} break a named invariant when they "
        "are left out; the others are second guards of one fact.", "",
        *table(("rule left out", "breaks", "after steps"),
               [(", ".join(one["rules_off"]), one["breach"] or "nothing: a second guard",
                 str(one["depth"])) for one in rules]), "",
    ]  # fmt: skip


def _mutations(figures: Mapping[str, Any]) -> list[str]:
    said = figures.get("mutations")
    if not said:
        return missing("Guards taken out of the code", "mutations")
    rows = [(one["name"], one["invariant"], one["guard"], one["caught_by"] or "**nothing**")
            for one in said["guards"]]  # fmt: skip
    caught = sum(bool(one["caught_by"]) for one in said["guards"])
    return [
        "## Guards taken out of the code", "",
        f"`python -m tests.mutations` takes one guard at a time out of a copy of the code and runs "
        f"the tests: {caught} of {len(rows)} are caught.", "",
        *table(("guard", "invariant", "what it does", "caught by"), rows), "",
    ]  # fmt: skip


def _sceptic() -> list[str]:
    return [
        "## Would a violation be seen?", "",
        "* `tests/e2e/checker.py` reads the invariants from the rows of the database after every",
        "  federation above; overlaps come from stamps that the tasks write themselves.",
        "* Each guard is taken out of the model and of the code, above, and its loss is noticed.",
        "* Everything ran on one machine: its clocks agree, and its network is the kernel's.",
    ]  # fmt: skip


SPREAD = ("", "p50", "p95", "p99", "max", "samples")


def spread(what: str, samples: Sequence[float]) -> tuple[str, ...]:
    if not samples:
        return (what, "-", "-", "-", "-", "0")
    shares = (percentile(samples, share) for share in (0.5, 0.95, 0.99))
    worst = f"{max(samples):.2f} s"
    return (what, *(f"{share:.2f} s" for share in shares), worst, str(len(samples)))


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    return lines + ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"
                    for row in rows]  # fmt: skip


def picture(drawn: Mapping[str, str], part: str) -> list[str]:
    return ["", f"![{part}](failure-report/{drawn[part]})"] if part in drawn else []


def missing(title: str, part: str) -> list[str]:
    return [f"## {title}", "", f"Not measured this time (part `{part}`).", ""]
