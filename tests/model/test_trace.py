"""Histories as the control plane writes them pass; each one with a lie in it is refused.

The lies are the harms of the protocol: an epoch left out, two owners, a write of a session that
never claimed, a row that says something else than its history.
"""

import re
import sqlite3
from pathlib import Path

import pytest

from tests.model.recorded import RUN, recorded
from tests.model.trace import check

BEGUN = ("0 launched -", "1 placed east", "1 fenced east", "1 claimed east session 1")
LOST = (*BEGUN, "1 suspected east", "2 fenced -")
TAKEN = (*LOST, "3 placed west", "3 fenced west", "3 claimed west session 1")
ASKED = (*BEGUN, "1 migrating east")
LET_GO = (*ASKED, "1 released east", "1 quiesced east")
MOVED = (*LET_GO, "2 placed west", "2 fenced west", "2 claimed west session 2", "2 moved west")
RUNS = "RUNNING 1 east 1 0 run"

GOOD = {
    "waits": (("0 launched -", "0 waiting -"), "WAITING 0 - 0 0 run"),
    "runs": (BEGUN, RUNS),
    "claimed once more": ((*BEGUN, "1 claimed east session 3"), "RUNNING 1 east 3 0 run"),
    "succeeds": ((*BEGUN, "2 succeeded east"), "SUCCEEDED 2 east 1 0 run"),
    "fails": ((*BEGUN, "2 failed east"), "FAILED 2 east 1 0 run"),
    "cancelled": (("0 launched -", "1 cancelled -"), "ABORTED 1 - 0 0 run"),
    "waited too long": (
        ("0 launched -", "0 waiting -", "1 failed -"), "FAILED 1 - 0 0 run",
    ),
    "unclaimed": (
        (*BEGUN[:3], "2 placed west", "2 fenced west"), "ASSIGNED 2 west 0 0 run",
    ),
    "taken over": ((*TAKEN, "3 unreachable -")[:-1], "RUNNING 3 west 1 0 run"),
    "lost outputs": (
        (*LOST, "2 unreachable -", "3 placed west", "3 fenced west"), "ASSIGNED 3 west 0 0 run",
    ),
    "held": ((*BEGUN, "1 held east", *LOST[4:]), "MOVING 2 - 0 0 run"),
    "no room": ((*BEGUN, "1 released east"), "WAITING 1 - 0 1 run"),
    "unreadable": ((*BEGUN, "2 unreadable east"), "WAITING 2 - 0 1 run"),
    "asked": (ASKED, "MOVING 1 east 1 0 quiesce"),
    "let go": (LET_GO, "MOVING 1 - 0 1 quiesce"),
    "moved": (MOVED, "RUNNING 2 west 2 0 run"),
    "did not let go": (
        (*ASKED, "1 suspected east", "2 fenced -", "2 quiesced east"), "MOVING 2 - 0 0 run",
    ),
    "claimed while it is to let go": (
        (*ASKED, "1 claimed east session 2"), "MOVING 1 east 2 0 quiesce",
    ),
    "restored": ((*BEGUN, "6 alarm -"), "WAITING 6 - 0 0 run"),
}  # fmt: skip

BAD = {
    "begins in the middle": (BEGUN[1:], RUNS, "begins with launched"),
    "launched twice": ((*BEGUN, "0 launched -"), RUNS, "begins with launched"),
    "an epoch is left out": (
        ("0 launched -", "2 placed east", "2 fenced east"), "ASSIGNED 2 east 0 0 run",
        "the row was at epoch 0",
    ),
    "an epoch is fenced twice": (
        (*BEGUN, "1 suspected east", "1 fenced -"), "MOVING 1 - 0 0 run", "raises by one",
    ),
    "fenced without a place": (
        ("0 launched -", "1 fenced east"), "ASSIGNED 1 east 0 0 run", "not been placed there",
    ),
    "fenced to another than was placed": (
        ("0 launched -", "1 placed west", "1 fenced east"), "ASSIGNED 1 east 0 0 run",
        "not been placed there",
    ),
    "given away under its owner": (
        (*BEGUN, "2 placed west", "2 fenced west"), "ASSIGNED 2 west 0 0 run",
        "east had claimed it",
    ),
    "taken without suspicion": (
        (*BEGUN, "2 fenced -"), "MOVING 2 - 0 0 run", "was not suspected",
    ),
    "another is suspected": (
        (*BEGUN, "1 suspected west", "2 fenced -"), "MOVING 2 - 0 0 run", "its owner was east",
    ),
    "claimed by another": ((*BEGUN, "1 claimed west session 1"), RUNS, "it belonged to east"),
    "claimed at a past epoch": (
        (*TAKEN, "1 claimed east session 2"), "RUNNING 3 west 1 0 run", "it belonged to west",
    ),
    "claimed by a former session": (
        (*BEGUN, "1 claimed east session 3", "1 claimed east session 2"),
        "RUNNING 1 east 3 0 run", "it belonged to east",
    ),
    "claimed after it let go": (
        (*LET_GO, "1 claimed east session 2"), "RUNNING 1 east 2 0 run", "it belonged to nobody",
    ),
    "claimed in a session that never was": (
        (*BEGUN, "1 claimed east session 9"), "RUNNING 1 east 9 0 run", "its newest is 3",
    ),
    "let go by another": (
        (*BEGUN, "1 released west"), "WAITING 1 - 0 1 run", "its owner was east",
    ),
    "let go without a claim": (
        (*BEGUN[:3], "1 released east"), "WAITING 1 - 0 1 run", "had not claimed it",
    ),
    "waits under its owner": ((*BEGUN, "1 waiting -"), "WAITING 1 east 1 0 run", "is nobody's"),
    "ended by another": (
        (*BEGUN, "2 succeeded west"), "SUCCEEDED 2 west 1 0 run", "its owner was east",
    ),
    "ended without a claim": (
        (*BEGUN[:3], "2 succeeded east"), "SUCCEEDED 2 east 0 0 run", "had not claimed it",
    ),
    "ended without raising": (
        (*BEGUN, "1 succeeded east"), "SUCCEEDED 1 east 1 0 run", "raises the epoch",
    ),
    "given up under its owner": ((*BEGUN, "2 failed -"), "FAILED 2 east 1 0 run", "east owned it"),
    "goes on after its end": (
        (*BEGUN, "2 succeeded east", "3 placed west"), "ASSIGNED 3 west 0 0 run", "had SUCCEEDED",
    ),
    "asked at a past epoch": (
        (*TAKEN, "1 migrating west"), "MOVING 3 west 1 0 quiesce", "the row was at epoch 3",
    ),
    "asked another": (
        (*BEGUN, "1 migrating west"), "MOVING 1 east 1 0 quiesce", "its owner was east",
    ),
    "quiesced, although its owner runs on": (
        (*ASKED, "1 quiesced east"), "MOVING 1 east 1 0 quiesce", "neither let go",
    ),
    "moved, although nobody claimed it": (
        (*LET_GO, "2 placed west", "2 fenced west", "2 moved west"), "ASSIGNED 2 west 0 0 run",
        "nobody had claimed it",
    ),
    "declared under its owner": ((*BEGUN, "1 unreachable -"), RUNS, "nobody's is declared"),
    "an alarm that goes back": (
        (*TAKEN, "2 alarm -"), "WAITING 2 - 0 0 run", "raises a row",
    ),
    "an event nobody knows": ((*BEGUN, "1 teleported west"), RUNS, "knows no such event"),
    "the row's epoch is another": (BEGUN, "RUNNING 2 east 1 0 run", "its row is"),
    "the row's owner is another": (BEGUN, "RUNNING 1 west 1 0 run", "its row is"),
    "the row's session is another": (BEGUN, "RUNNING 1 east 2 0 run", "its row is"),
    "the row says it let go": (BEGUN, "RUNNING 1 east 1 1 run", "its row is"),
    "the row wants what was never asked": (BEGUN, "RUNNING 1 east 1 0 quiesce", "its row is"),
    "the row's phase is another": (BEGUN, "WAITING 1 east 1 0 run", "its row is"),
}  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_what_may_happen_passes(name: str) -> None:
    lines, row = GOOD[name]
    assert check(recorded(lines, row)) == []


@pytest.mark.parametrize("name", BAD)
def test_a_history_with_a_lie_in_it_is_refused(name: str) -> None:
    lines, row, why = BAD[name]
    [said, *_] = check(recorded(lines, row))
    assert said.startswith(RUN)
    assert why in said


def test_outputs_of_every_claimed_session_pass() -> None:
    lines = (*TAKEN, "3 claimed west session 2")
    made = ("a 1 east 1", "b 3 west 1", "c 3 west 2")
    assert check(recorded(lines, "RUNNING 3 west 2 0 run", made=made)) == []


@pytest.mark.parametrize(
    "made",
    [("a 2 west 1",), ("a 3 east 1",), ("a 3 west 2",), ("a 3 west 1", "b 1 east 1")],
    ids=["at nobody's epoch", "by a former owner", "by another session", "late"],
)
def test_an_output_that_nobody_could_write_is_refused(made: tuple[str, ...]) -> None:
    assert check(recorded(TAKEN, "RUNNING 3 west 1 0 run", made=made))


def test_pinned_work_is_taken_from_nobody() -> None:
    [said] = check(recorded(LOST, "MOVING 2 - 0 0 run", mode="pinned"))
    assert "PINNED" in said


def test_a_decision_that_says_another_cluster_is_refused() -> None:
    [said] = check(recorded(BEGUN, RUNS, placed={1: "west"}))
    assert "the decision that is kept says west" in said


def test_a_file_is_read_as_its_connection_is(tmp_path: Path) -> None:
    path = tmp_path / "control-plane.db"
    with recorded(BEGUN, "RUNNING 2 east 1 0 run") as memory:
        copy = sqlite3.connect(path)
        memory.backup(copy)
        assert check(path) == check(memory) != []
        copy.close()
    memory.close()


def test_every_kind_that_is_told_is_known() -> None:
    root = Path(__file__).parents[2]
    code = "".join(file.read_text() for file in (root / "control_plane").rglob("*.py"))
    told = set(re.findall(r'\bEntry\(\s*[^"()]*(?:\([^()]*\)[^"()]*)*(?<!\[)"([a-z]+)"', code))
    assert {"kept", "placed", "migrating"} <= told
    known = (root / "tests" / "model" / "replay.py").read_text()
    assert [kind for kind in sorted(told) if f'"{kind}"' not in known] == []
