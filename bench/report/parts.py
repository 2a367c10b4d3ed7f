"""What the report measures, a part a function: figures as plain JSON, to be kept and read again.

Called by `__main__.py`; injections come from the modules beside this folder, rows of the fault
matrix from the tests that are marked with them.
"""

import json
import os
import sqlite3
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import alone, loss, moves, work, zombies
from bench.federation import federation, load_program
from tests.e2e.checker import check
from tests.e2e.kubernetes.state import why_not

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Effort:
    """How often each kind of fault is injected; `crowd` is the runs of the region lost at once."""

    losses: int
    runs: int
    migrations: int
    exclusive: int
    pods: int
    cuts: int
    crowd: int
    flapping_seconds: float
    model: tuple[str, ...]
    tests: tuple[str, ...]


FULL = Effort(
    losses=30, runs=100, migrations=30, exclusive=15, pods=9, cuts=10, crowd=1000,
    flapping_seconds=300, model=("--all",),
    tests=("tests/e2e", "tests/data_plane_agent", "tests/control_plane", "tests/router"),
)  # fmt: skip
QUICK = Effort(
    losses=3, runs=5, migrations=5, exclusive=2, pods=3, cuts=2, crowd=50, flapping_seconds=30,
    model=(), tests=("tests/e2e/faults", "tests/e2e/test_regions.py"),
)  # fmt: skip


def judged(data: Path) -> dict[str, Any]:
    """What the database says of every run of this federation: broken invariants, lost runs."""
    connection = sqlite3.connect(f"file:{data / 'control-plane.db'}?mode=ro", uri=True)
    connection.row_factory = sqlite3.Row
    try:
        check(connection)
        broken = ""
    except AssertionError as error:
        broken = str(error)
    phases = dict(connection.execute("SELECT phase, count(*) FROM execution GROUP BY phase"))
    outputs = connection.execute("SELECT count(*) FROM node_output").fetchone()[0]
    doubled = connection.execute(
        "SELECT count(*) FROM (SELECT 1 FROM node_output WHERE live"
        " GROUP BY execution, node HAVING count(*) > 1)"
    ).fetchone()[0]
    causes = dict(connection.execute(
        "SELECT cause, count(*) FROM placement WHERE cluster != '' GROUP BY cause"
    ))  # fmt: skip
    connection.close()
    return {
        "broken": broken, "runs": sum(phases.values()), "phases": phases, "outputs": outputs,
        "doubled": doubled, "causes": causes,
        "lost": sum(phases.values()) - phases.get("SUCCEEDED", 0),
    }  # fmt: skip


def losses(folder: Path, effort: Effort) -> dict[str, Any]:
    """SIGKILL of a region's agent and tasks."""
    stages: dict[str, list[float]] = defaultdict(list)
    slots = {"WHIMBREL_AGENT_SLOTS": str(max(4, effort.runs))}
    with federation(folder / "data", environment=slots) as whole, whole.client() as client:
        flows = work.register(client, load_program())
        for index in range(effort.losses):
            found = loss.one_loss(
                whole, client, flows, folder=folder / f"loss-{index}", runs=effort.runs
            )
            for stage, values in found.items():
                stages[stage] += values
        return {"injections": effort.losses, "stages": stages, "judged": judged(whole.data)}


def migrations(folder: Path, effort: Effort) -> dict[str, Any]:
    with federation(folder / "data") as whole, whole.client() as client:
        flow = moves.register(client, "stepping")
        pauses = moves.migrations(client, flow, folder=folder / "runs", count=effort.migrations)
        return {"injections": len(pauses), "pauses": pauses, "judged": judged(whole.data)}


def exclusive(folder: Path, effort: Effort) -> dict[str, Any]:
    """Frozen agents and cut links, whose tasks go on."""
    with federation(folder / "data") as whole, whole.client() as client:
        flow = moves.register(client, "exclusive")
        found = zombies.exclusive(
            whole, client, flow, folder=folder, losses=effort.exclusive, runs=2
        )
        return {
            "injections": effort.exclusive, "gaps": found.gaps, "overlaps": found.overlaps,
            "judged": judged(whole.data),
        }  # fmt: skip


def pods(folder: Path, effort: Effort) -> dict[str, Any]:
    """Exclusive runs in real clusters: a node, a region or an agent is cut off."""
    if missing := why_not():
        return {"unmeasured": missing}
    with alone.cloud(folder) as (whole, clusters):
        gaps = alone.gaps(whole, clusters, losses=effort.pods)
        return {
            "injections": effort.pods, "gaps": gaps, "judged": judged(whole.federation.data),
            "overlaps": sum(gap < 0 for found in gaps.values() for gap in found),
        }  # fmt: skip


def cuts(folder: Path, effort: Effort) -> dict[str, Any]:
    """Cut links under idempotent work: how long two copies ran, what was done twice."""
    with federation(folder / "data") as whole, whole.client() as client:
        flow = moves.register(client, "stepping")
        found = zombies.cuts(whole, client, flow, folder=folder, cuts=effort.cuts, runs=3)
        return {
            "injections": effort.cuts, "double_seconds": found.double_seconds,
            "repeated_seconds": found.repeated_seconds, "useful_seconds": found.useful_seconds,
            "judged": judged(whole.data),
        }  # fmt: skip


def crowd(folder: Path, effort: Effort) -> dict[str, Any]:
    with federation(folder / "data") as whole, whole.client() as client:
        flows = work.register(client, load_program())
        work.warm_up(client, flows, len(whole.sandbox["regions"]))
        found = moves.crowd(
            whole, client, flows.gated, flows.one, folder=folder / "crowd", runs=effort.crowd
        )
        return {
            "runs": found.moved, "rate": found.rate, "whole_seconds": found.whole_seconds,
            "before": found.before, "during": found.during, "judged": judged(whole.data),
        }  # fmt: skip


def flapping(folder: Path, effort: Effort) -> dict[str, Any]:
    """A link that is up for 2 s and down for 4 s, with sessions of 2 s."""
    with federation(folder / "data", preset="test") as whole, whole.client() as client:
        flow = moves.register(client, "stepping")
        found = zombies.flapping(
            whole, client, flow, folder=folder / "runs", seconds=effort.flapping_seconds
        )
        return {
            "seconds": found.seconds, "flaps": found.flaps, "sessions": found.sessions,
            "failovers": found.failovers, "elsewhere": found.elsewhere,
            "judged": judged(whole.data),
        }  # fmt: skip


def model(folder: Path, effort: Effort) -> dict[str, Any]:
    folder.mkdir(parents=True)
    return {
        "scenarios": _json(folder / "all", "tests.model", *effort.model),
        "rules": _json(folder / "rules", "tests.model", "--mutations"),
    }


def mutations(folder: Path, _: Effort) -> dict[str, Any]:
    folder.mkdir(parents=True)
    return {"guards": _json(folder / "guards", "tests.mutations")}


def faults(folder: Path, effort: Effort) -> dict[str, Any]:
    """Every test that injects a row of the matrix, once."""
    folder.mkdir(parents=True)
    file = folder / "faults.json"
    command = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "--faults-json", str(file)]
    command += ["-m", "fault", *effort.tests]
    subprocess.run([sys.executable, *command], cwd=ROOT, check=False)
    return {"tests": json.loads(file.read_text())}


def _json(file: Path, module: str, *arguments: str) -> Any:
    command = [sys.executable, "-m", module, *arguments, "--json", str(file)]
    subprocess.run(command, cwd=ROOT, check=False, env={**os.environ, "NO_COLOR": "1"})
    return json.loads(file.read_text())


Part = Callable[[Path, Effort], dict[str, Any]]
PARTS: Mapping[str, Part] = {
    "losses": losses, "migrations": migrations, "exclusive": exclusive, "pods": pods,
    "cuts": cuts, "crowd": crowd, "flapping": flapping, "faults": faults, "model": model,
    "mutations": mutations,
}  # fmt: skip
