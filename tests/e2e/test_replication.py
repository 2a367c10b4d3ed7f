"""Data in other regions: there when its own region is lost, and never where it may not lie."""

import json
from collections.abc import Callable

from tests.e2e.federation import PROGRAMS, Federation, eventually

CARD = b"4111-2222-3333"


def test_a_lost_region_costs_nothing_that_was_copied(federation: Federation) -> None:
    name = "region-lost-copied"
    folder = str(federation.folder / name)
    run = federation.launch(name, program="copied", workflow="copied", folder=folder)
    region = run.at_gate()
    run.await_committed(2)
    others = len(federation.sandbox["regions"]) - 1
    copies = "SELECT * FROM replica WHERE execution = :x"
    eventually("the file is copied", lambda: len(run.row(copies)) == others)
    federation.sandbox_command("kill", region)
    assert run.at_gate(starts=2) != region
    run.open()
    run.await_phase("SUCCEEDED")
    assert run.execution["outputs"] == {"o0": 36}
    assert (run.starts("write"), run.starts("count"), run.starts("total")) == (1, 1, 1)
    wrote = next(one for one in run.execution["nodes"] if one["task"].endswith("write"))
    assert wrote["lineage"].startswith("kept: copy in ")
    told = run.row("SELECT text FROM timeline WHERE execution = :x AND kind = 'kept'")
    assert "1 kept as copies in " in told[0]["text"]
    explained = federation.whimbrel("execution", "explain", name).stdout
    assert "kept: copy in " in explained


def test_values_stay_in_their_region(fresh: Callable[..., Federation]) -> None:
    """Of runs that may not leave eu-*, a control plane in us-east is told no value."""
    federation = fresh(environment={"WHIMBREL_CONTROL_PLANE_REGION": "us-east"})
    program = str(PROGRAMS / "copied.py")
    for name, phase in (("kept", "SUCCEEDED"), ("broken", "FAILED")):
        federation.whimbrel("run", program, name, "--remote", "--name", name)
        eventually(f"{name} ends", lambda n=name, p=phase: ended(federation, n) == p)
    for file in federation.data.glob("control-plane.db*"):
        assert CARD not in file.read_bytes(), file
    shown = json.loads(federation.whimbrel("execution", "get", "kept", "-o", "json").stdout)
    assert shown["outputs"]["o0"]["$artifact"]["region"].startswith("eu-")
    shown = json.loads(federation.whimbrel("execution", "get", "broken", "-o", "json").stdout)
    assert shown["error"]["message"].startswith("kept in region eu-")
    refused = federation.whimbrel("execution", "logs", "kept", check=False)
    assert refused.returncode != 0
    assert "must stay in eu-*; this control plane is in us-east" in refused.stderr
    with federation.database() as database:
        rows = database.execute("SELECT text FROM timeline WHERE kind = 'refused'").fetchall()
    assert "logs asked for by ipv4:127.0.0.1" in rows[0]["text"]


def ended(federation: Federation, name: str) -> str:
    with federation.database() as database:
        row = database.execute("SELECT phase FROM execution WHERE name = ?", (name,)).fetchone()
    return row["phase"] if row else ""
