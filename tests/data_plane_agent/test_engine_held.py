"""What is not held is not started, also where it was once: a retry that waits, a found attempt."""

import asyncio
from pathlib import Path

import pytest
from whimbrel.spec import Assignment, Failure, Owner, input_digest
from whimbrel.spec import digest as spec_digest

from data_plane_agent import codec
from data_plane_agent import messages as m
from data_plane_agent.launcher import Attempt, AttemptKey
from data_plane_agent.outbox import Entry
from tests.data_plane_agent.engine_under_test import X, agent, forever, until
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


@pytest.mark.anyio
async def test_what_was_let_go_of_is_not_started_while_that_waits(tmp_path: Path) -> None:
    """RELEASED was written before a crash; the row still grants the Claim, as it has not heard."""
    ledger = FakeLedger()
    ledger.launch(X, chain(1))
    left = AttemptKey(X, "n0", 1, epoch=1)
    async with agent(tmp_path, ledger, forever, found={left: "of whatever"}) as it:
        said = codec.encode(m.Released("unschedulable", "no room"), execution=X, epoch=1)
        it.outbox.put([Entry(X, 1, said, last=True)])
        it.assign(X)
        it.join()
        assert isinstance(await it.end(), m.Released)
        assert it.nodes_started == []
        assert it.launcher.cancelled == [left]


@pytest.mark.anyio
async def test_after_its_last_word_a_run_is_stopped_though_nobody_has_heard_it(
    tmp_path: Path,
) -> None:
    ledger = FakeLedger()
    ledger.launch(X, graph({"fails": [], "slow": []}))

    def behave(attempt: Attempt) -> Failure | None:
        ledger.away = True
        return Failure(Owner.USER, "raised", "no") if attempt.key.node == "fails" else None

    async with agent(tmp_path, ledger, behave) as it:
        it.assign(X)
        it.join()
        await until(lambda: any(entry.last for entry in it.outbox.pending()))
        await until(lambda: it.launcher.cancelled)
        assert [key.node for key in it.launcher.cancelled] == ["slow"]
        assert ledger.batches == []


@virtual
async def test_nothing_starts_while_the_outbox_can_not_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = FakeLedger()
    ledger.launch(X, chain(2))
    async with agent(tmp_path, ledger, forever) as it:
        it.assign(X)
        it.join()
        await until(lambda: it.launcher.started)
        append = it.outbox._append

        def full(entries: list[Entry]) -> None:
            raise OSError("no space left on device")

        monkeypatch.setattr(it.outbox, "_append", full)
        await until(lambda: not it.outbox.healthy or it.outbox.put([Entry(X, 1, b"")]))
        first = it.launcher.started[0]
        it.launcher.events.put_nowait([finished(first.key, {"o0": 1}, first.input_digest)])
        await asyncio.sleep(10)
        assert len(it.launcher.started) == 1
        monkeypatch.setattr(it.outbox, "_append", append)
        await until(lambda: len(it.launcher.started) == 2)
