"""Deadlines on workers' pages: whose they are, and what a session's end takes away."""

from pathlib import Path

import pytest
from whimbrel.runtime_frames import StatePage

from data_plane_agent.launcher import AttemptKey
from data_plane_agent.processes.renewals import Renewals
from data_plane_agent.processes.workers import FamilyProcess, Lane, Record, WorkerProcess
from tests.data_plane_agent.processes.exclusive_under_test import Session


@pytest.fixture
def page(tmp_path: Path) -> StatePage:
    return StatePage(tmp_path / "page", create=True)


def at_work(page: StatePage, *, exclusive: bool = True, renewable: bool = True) -> WorkerProcess:
    family = FamilyProcess("f")
    worker = WorkerProcess("w", family, Path(), 0.0, page=page)
    key = AttemptKey("p/d/run", "n", 1, 7)
    worker.assigned[3] = Record(
        key, "", Lane(family, 0.0, 0), 0.0, 0, None, seq=3, exclusive=exclusive, renewable=renewable
    )
    return worker


def write(renewals: Renewals, worker: WorkerProcess) -> None:
    renewals.write([worker], list(worker.assigned.values()))


def test_a_live_deadline_is_for_the_task_it_was_written_for(page: StatePage) -> None:
    session = Session()
    session.renew(for_seconds=60)
    write(Renewals(session), at_work(page))
    assert page.granted(3) == session.until
    assert page.granted(2) == page.granted(4) == 0


@pytest.mark.parametrize("worker", [{"exclusive": False}, {"renewable": False}])
def test_nobody_else_gets_one(page: StatePage, worker: dict[str, bool]) -> None:
    session = Session()
    session.renew(for_seconds=60)
    write(Renewals(session), at_work(page, **worker))
    assert page.granted(3) == 0


def test_one_that_has_passed_is_not_written(page: StatePage) -> None:
    for renewals in (Renewals(Session(until=1)), Renewals(None)):
        write(renewals, at_work(page))
        assert page.granted(3) == 0


def test_the_next_session_renews_only_what_it_claims(page: StatePage) -> None:
    session = Session()
    renewals, worker = Renewals(session), at_work(page)
    write(renewals, worker)  # no session yet: nothing is lost by that
    session.renew(for_seconds=60)
    write(renewals, worker)
    first = session.until
    session.until = 0
    write(renewals, worker)
    session.renew(for_seconds=90)
    write(renewals, worker)
    assert page.granted(3) == first
    worker.assigned[3].renewable = True
    write(renewals, worker)
    assert page.granted(3) == session.until


def test_half_a_deadline_is_none(tmp_path: Path) -> None:
    page = StatePage(tmp_path / "page", create=True)
    page.grant(3, 0x00FF)
    whole = (tmp_path / "page").read_bytes()
    page.grant(3, 0x0100)
    torn = bytearray((tmp_path / "page").read_bytes())
    differing = [at for at in range(len(whole)) if whole[at] != torn[at]]
    torn[differing[0]] = whole[differing[0]]
    (tmp_path / "page").write_bytes(torn)
    assert StatePage(tmp_path / "page").granted(3) == 0
