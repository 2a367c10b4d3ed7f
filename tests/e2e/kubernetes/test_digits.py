"""The example pipeline, unchanged, in real clusters: it loses a node, then its whole region."""

import json
from itertools import count
from pathlib import Path

from tests.e2e.federation import Run, eventually
from tests.e2e.kubernetes.runs import Cloud

EXAMPLE = Path(__file__).parents[3] / "examples" / "digits.py"
LONG = 600.0


def test_digits_loses_a_node_then_its_region_and_arrives(cloud: Cloud, clusters: dict) -> None:
    federation, alpha = cloud.federation, clusters["alpha"]
    # As many rounds as it takes for a model to be in training still when its node is killed.
    launch = ("run", str(EXAMPLE), "digits", "--remote", "--rounds", "60",
              "--region", "alpha", "--region", "beta")  # fmt: skip
    names = (f"digits-{number}" for number in count())

    def welcome() -> str:
        name = next(names)
        plan = federation.whimbrel(*launch, "--name", name, "--dry-run", "-o", "json").stdout
        return name if json.loads(plan)["cluster"] == "alpha" else ""

    # A cluster that was lost a moment ago, by an earlier test, gets no new work for a while, and
    # then a growing share of it: which runs are in the share is told by their names.
    name = eventually("alpha gets a run of this name", welcome, deadline=LONG)
    federation.whimbrel(*launch, "--name", name)
    run = Run(federation, name, federation.folder)

    def training() -> list[dict]:
        return [n for n in run.execution["nodes"] if n["id"].startswith("train")]

    def hosts() -> set[str]:
        return {n["host"] for n in training() if n["phase"] == "RUNNING" and n["checkpoint"]}

    host = eventually("a model trains and has saved", lambda: next(iter(hosts()), ""),
                      deadline=LONG)  # fmt: skip
    alpha.crash(host)
    eventually(
        "a model is trained again on another node",
        lambda: any(n["attempt"] > 1 and n["phase"] == "RUNNING" for n in training()),
        deadline=LONG,
    )
    assert run.causes() == ["launch"]
    alpha.cut_all()
    federation.sandbox_command("cut", "alpha")
    try:
        eventually("the run has ended", lambda: run.phase() == "SUCCEEDED", deadline=LONG)
    finally:
        alpha.heal_all()
        alpha.restart_node(host)
        federation.sandbox_command("heal", "alpha")
    execution = run.execution
    assert execution["cluster"] == "beta"
    assert run.causes() == ["launch", "failover"]
    assert execution["outputs"]["best"]["accuracy"] > 0.9
    assert all(n["user_failures"] == 0 for n in execution["nodes"])
