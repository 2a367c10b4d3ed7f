"""Planned moves and drains while the control plane is killed between two of their steps: what was
asked for is done once, whoever does it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.federation import Federation, Run, eventually

QUICK = {"WHIMBREL_CONTROL_PLANE_MIGRATE_QUIESCE_SECONDS": "5"}


def ended(run: Run, number: int) -> dict[str, Any] | None:
    rows = run.row("SELECT * FROM migration WHERE execution = :x ORDER BY number")
    found = [dict(row) for row in rows if row["number"] == number and row["ended_ns"]]
    return found[0] if found else None


@pytest.mark.parametrize(
    "step",
    [
        "migrate.after_request",
        "migrate.after_prepare",
        "migrate.after_quiesce",
        "migrate.after_hand_over",
        "migrate.after_dispatch",
    ],
)
def test_a_move_survives_a_control_plane_killed_at(
    step: str, fresh: Callable[..., Federation], tmp_path: Path
) -> None:
    crashed = tmp_path / "crashed"
    crash = {"WHIMBREL_CRASH_AT": step, "WHIMBREL_CRASH_ONCE": str(crashed)}
    federation = fresh(environment=QUICK | crash)
    run = federation.launch("moved")
    source = run.at_gate()
    run.await_committed(1)
    target = next(region for region in federation.sandbox["regions"] if region != source)
    federation.whimbrel("execution", "migrate", "moved", "--to", target, check=False)
    assert run.at_gate(starts=2) == target
    row = eventually("the move ends", lambda: ended(run, 1))
    assert (row["phase"], row["to_cluster"]) == ("RESUMED", target)
    run.open()
    run.await_phase("SUCCEEDED")
    assert run.causes() == ["launch", "migration"]
    assert run.execution["outputs"] == {"o0": 42}
    assert crashed.exists()


def test_a_drained_cluster_gets_nothing_new(fresh: Callable[..., Federation]) -> None:
    federation = fresh(environment=QUICK)
    run = federation.launch("drained")
    source = run.at_gate()
    federation.whimbrel("cluster", "drain", source)
    assert run.at_gate(starts=2) != source
    again = federation.launch("later")
    assert again.at_gate() != source
    for one in (run, again):
        one.open()
        one.await_phase("SUCCEEDED")
    with federation.database() as database:
        [drain] = database.execute("SELECT cluster, phase, total FROM drain")
    assert tuple(drain) == (source, "DONE", 1)
