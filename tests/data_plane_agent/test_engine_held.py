"""What is not held is not started, also where it was once: a retry that waits, a found attempt."""

import asyncio
from pathlib import Path

import pytest
from whimbrel.spec import Assignment, Failure, Owner, input_digest
from whimbrel.spec import digest as spec_digest

from data_plane_agent import messages as m
from data_plane_agent.launcher import Attempt, AttemptKey
from tests.data_plane_agent.engine_under_test import X, agent, until
from tests.data_plane_agent.graphs import chain, graph
from tests.data_plane_agent.virtual_time import virtual
from tests.fakes import FakeLedger, finished


@virtual
async def test_a_retry_that_was_waited_for_does_not_outlive_its_run(tmp_path: Path) -> None:
    ledger = FakeLedger()
    ledger.launch(X, chain(1))

    def breaks(attempt: Attempt) -> Failure:
        return Failure(Owner.SYSTEM, "worker_died", "killed", attempt.key.node)

    async with agent(tmp_path, ledger, breaks) as it:
        it.assign(X)
        it.join()
        await until(lambda: it.launcher.taken_keys)
        it.engine.assigned(m.Removed((Assignment(X, 1, "c"),)))
        await until(lambda: not it.engine.held())
        await asyncio.sleep(60)
        assert len(it.launcher.started) == 1


@pytest.mark.anyio
async def test_an_attempt_of_an_older_epoch_is_not_adopted(tmp_path: Path) -> None:
    """Both outlived a former agent that held the run at two epochs; only one of them may go on."""
    ledger = FakeLedger()
    spec = graph({"a": [], "b": []})
    ledger.launch(X, spec, epoch=2)
    made_from = input_digest(spec_digest(spec.tasks[0]), {"x": 7, "before": []})
    old, new = AttemptKey(X, "a", 1, epoch=1), AttemptKey(X, "b", 1, epoch=2)
    async with agent(tmp_path, ledger, found={old: made_from, new: made_from}) as it:
        it.join(2)
        await until(lambda: it.engine.held() == (m.Wish(X, 2),))
        it.launcher.events.put_nowait([finished(new, {"o0": "b"}, made_from)])
        assert isinstance(await it.end(), m.Succeeded)
        assert it.launcher.cancelled == [old]
        assert [one.key.epoch for one in it.launcher.started] == [2]
        assert it.nodes_started == ["a"]
