"""An agent's disk is full; the region's store takes nothing for a while."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.checker import check
from tests.e2e.federation import Federation, eventually

SMALL = "size=24m"
"""For one agent: enough to start with, little enough to be filled at once."""


@pytest.fixture
def narrow(tmp_path: Path) -> Iterator[tuple[Federation, Path]]:
    """A federation whose region `narrow` keeps its agent's files on a small disk of its own."""
    federation = Federation(tmp_path, options=("--region", "narrow", "--region", "wide"))
    federation.start()  # makes the folder; what an agent has in it is made anew
    federation.stop()
    disk = federation.data / "narrow" / "agent"
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", SMALL, "whimbrel-test", str(disk)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip(f"no small disk: {mounted.stderr.decode().strip()}")
    try:
        federation.start()
        yield federation, disk
        with federation.database() as database:
            check(database)
    finally:
        federation.stop()
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


@pytest.mark.fault(43)
def test_a_full_disk_keeps_new_work_away_and_loses_nothing(narrow: tuple[Federation, Path]) -> None:
    federation, disk = narrow
    run = federation.launch("on-a-full-disk", program="many", workflow="many", region="narrow")
    run.await_committed(1)
    pid = federation.pid("agent/narrow")
    filler = disk / "filler"
    fill(filler)
    eventually(
        "the agent says that its spool can't be written",
        lambda: "can't be written" in (federation.cluster("narrow")["ill"] or ""),
    )
    later = [federation.launch(f"elsewhere-{i}") for i in range(3)]
    assert [one.at_gate() for one in later] == ["wide"] * 3
    filler.unlink()
    for one in (run, *later):
        one.open()
        one.await_phase("SUCCEEDED")
        assert one.causes() == ["launch"]
    assert len(run.row("SELECT 1 FROM node_output WHERE execution = :x AND live")) == 301
    assert federation.pid("agent/narrow") == pid, "the agent crashed"


def fill(filler: Path) -> None:
    """Not a byte is free afterwards."""
    with filler.open("wb", buffering=0) as file:
        size = shutil.disk_usage(filler.parent).free
        while size >= 1:
            try:
                file.write(b"x" * size)
            except OSError:
                size //= 2


@pytest.mark.fault(45)
def test_a_store_that_takes_nothing_commits_nothing(federation: Federation) -> None:
    """What is not stored is not committed; the step is tried again when the store is back."""
    run = federation.launch("no-store", workflow="gated_file")
    region = run.at_gate()
    store = federation.data / region / "store"
    away = store.with_name("store.away")
    store.rename(away)
    store.write_text("not a folder")
    run.open()
    eventually(
        "the step that writes has failed for the platform's reasons",
        lambda: run.row("SELECT 1 FROM node_state WHERE execution = :x AND system_failures > 0"),
    )
    assert len(run.row("SELECT 1 FROM node_output WHERE execution = :x AND live")) == 2
    store.unlink()
    away.rename(store)
    run.await_phase("SUCCEEDED")
    assert run.execution["outputs"] == {"o0": 21}
