"""Files that are no answers, and a machine on which no process can be started for a while."""

import os
import signal
from pathlib import Path

import pytest
from whimbrel.runtime_worker import spool_file

from data_plane_agent.attempt_answers import parts_of
from data_plane_agent.launcher import Broke, Finished, Found
from tests.data_plane_agent.processes import exclusive_under_test
from tests.data_plane_agent.processes.exclusive_under_test import Session, appears_line, exclusive
from tests.data_plane_agent.processes.under_test import (
    FLOW,
    Region,
    appears,
    attempt,
    one_end,
)

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("text", ["", "[]", '{"k": ["p/d/x", "n", 1, 1], "t": "done"}'])
async def test_an_agent_starts_beside_what_is_no_answer(tmp_path: Path, text: str) -> None:
    region = Region(tmp_path)
    region.write(FLOW)
    spool = tmp_path / "agent" / "spool"
    spool.mkdir(parents=True)
    (spool / "x.json").write_text(text)
    launcher = region.launcher()
    await launcher.open()
    try:
        events = launcher.watch()
        await anext(events)
        await launcher.start([attempt("flow:double", inputs={"x": 4})])
        assert isinstance(await one_end(events), Finished)
    finally:
        await launcher.close(kill=True)


async def test_a_torn_answer_of_a_dead_worker_is_its_end_all_the_same(tmp_path: Path) -> None:
    region = Region(tmp_path)
    region.write(FLOW)
    launcher = region.launcher()
    await launcher.open()
    try:
        events = launcher.watch()
        await anext(events)
        mark = region.marks / "m"
        asked = attempt("flow:say_and_sleep", inputs={"mark": str(mark), "seconds": 60})
        await launcher.start([asked])
        pid = int(await appears(mark))
        spool_file(region.root / "agent", parts_of(asked.key)).write_text("")
        os.kill(pid, signal.SIGKILL)
        assert isinstance(await one_end(events), Broke)
    finally:
        await launcher.close(kill=True)


async def test_a_family_that_can_not_be_started_is_tried_again(tmp_path: Path) -> None:
    region = Region(tmp_path)
    region.write(FLOW)
    launcher = region.launcher()
    await launcher.open()
    try:
        events = launcher.watch()
        await anext(events)
        spawned: list[str] = []
        known = launcher.pool._spawn

        def spawn(family, key, code) -> None:  # type: ignore[no-untyped-def]
            spawned.append(family.id)
            if len(spawned) == 1:
                raise OSError(28, "No space left on device")
            known(family, key, code)

        launcher.pool._spawn = spawn  # type: ignore[method-assign]
        await launcher.start([attempt("flow:double", inputs={"x": 4})])
        assert isinstance(await one_end(events), Finished)
        assert len(spawned) == 2
    finally:
        await launcher.close(kill=True)


async def test_a_death_between_two_agents_is_told_to_the_second(tmp_path: Path) -> None:
    """The family stands still while the worker dies, and buries it before it sees the new agent."""
    region = Region(tmp_path)
    region.write(exclusive_under_test.FLOW)
    session = Session()
    session.renew(for_seconds=600)
    first = region.launcher(renewal=session)
    await first.open()
    mark = region.marks / "m"
    asked = exclusive("stamps", mark)
    await first.start([asked])
    worker = int(await appears_line(mark))
    [family] = [one.pid for one in first.pool.families.values() if one.pid]
    os.kill(family, signal.SIGSTOP)
    await first.close(kill=False)
    second = region.launcher(renewal=session)
    await second.open()
    try:
        events = second.watch()
        assert await anext(events) == [Found({asked.key: asked.input_digest})]
        os.kill(worker, signal.SIGKILL)
        os.kill(family, signal.SIGCONT)
        assert isinstance(await one_end(events), Broke)
    finally:
        await second.close(kill=True)
