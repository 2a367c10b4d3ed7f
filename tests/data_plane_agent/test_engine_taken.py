"""A launcher may forget an attempt's end once it is on disk, not earlier."""

import asyncio
from pathlib import Path

import pytest
from whimbrel.spec import Artifact, Failure, Outputs, Owner, digest, input_digest, sha256

from data_plane_agent import codec
from data_plane_agent import messages as m
from data_plane_agent.launcher import AttemptKey, Broke, Finished
from data_plane_agent.outbox import Entry, Outbox
from tests.data_plane_agent.engine_under_test import X, agent, answer, forever, until
from tests.data_plane_agent.graphs import chain, graph
from tests.fakes import FakeLedger, finished

pytestmark = pytest.mark.anyio

KEY = AttemptKey(X, "n0", 1, 1)


async def test_only_what_is_on_disk_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = FakeLedger()
    ledger.launch(X, chain(1))
    async with agent(tmp_path, ledger, forever) as it:
        it.assign(X)
        it.join()
        await until(lambda: it.launcher.started)
        append, refused = it.outbox._append, asyncio.Event()
        loop = asyncio.get_running_loop()
        full = True

        def write(entries: list[Entry]) -> None:
            if full:
                loop.call_soon_threadsafe(refused.set)
                raise OSError("no space left on device")
            append(entries)

        monkeypatch.setattr(it.outbox, "_append", write)
        monkeypatch.setattr("data_plane_agent.outbox.RETRY_SECONDS", 0.05)
        attempt = it.launcher.started[0]
        end = finished(KEY, answer(attempt), attempt.input_digest)
        it.launcher.events.put_nowait([end])
        await refused.wait()
        it.launcher.events.put_nowait([])  # the next batch was asked for
        await until(it.launcher.events.empty)
        assert it.launcher.taken_keys == []
        full = False
        await until(lambda: it.launcher.taken_keys == [KEY])
        assert isinstance(await it.end(), m.Succeeded)


async def test_an_end_nobody_waits_for_is_taken(tmp_path: Path) -> None:
    async with agent(tmp_path, FakeLedger()) as it:
        it.launcher.events.put_nowait([Broke(KEY, Failure(Owner.USER, "raised", ""), 1, 2)])
        await until(lambda: it.launcher.taken_keys == [KEY])


async def test_outputs_in_the_store_are_read_first(tmp_path: Path) -> None:
    ledger = FakeLedger()
    ledger.launch(X, chain(1))
    data = b'{"o0":1}'
    artifact = Artifact("file:///d", sha256(data), len(data), "r", "outputs")
    async with agent(tmp_path, ledger, forever) as it:
        it.assign(X)
        it.join()
        await until(lambda: it.launcher.started)
        may_read = asyncio.Event()

        class Slow:
            async def get(self, uri: str) -> bytes:
                await may_read.wait()
                return data

        it.engine._documents._store = Slow()
        made_from = it.launcher.started[0].input_digest
        outputs = Outputs("", sha256(data), (), artifact)
        it.launcher.events.put_nowait([Finished(KEY, outputs, made_from, 1, 2)])
        await asyncio.sleep(0.05)
        assert it.launcher.taken_keys == []
        may_read.set()
        await until(lambda: it.launcher.taken_keys == [KEY])


async def test_a_failure_on_disk_is_not_told_again(tmp_path: Path) -> None:
    """Killed after the write and before the launcher knew: its attempt is found again."""
    spec = graph({"a": []}, retries=1)
    ledger = FakeLedger()
    ledger.launch(X, spec)
    key, failure = AttemptKey(X, "a", 1, 1), Failure(Owner.USER, "raised", "", "a")
    said = codec.encode(m.AttemptFailed("a", 1, failure, True, 1, 2), execution=X, epoch=1)
    outbox = Outbox(tmp_path / "outbox")
    outbox.put([Entry(X, 1, said)])
    outbox.close()
    made_from = input_digest(digest(spec.tasks[0]), {"x": 7, "before": []})
    async with agent(tmp_path, ledger, found={key: made_from}) as it:
        it.launcher.events.put_nowait([Broke(key, failure, 1, 2)])
        it.assign(X)
        it.join()
        assert isinstance(await it.end(), m.Succeeded)
        assert it.launcher.cancelled == [key]
        assert [one.key.attempt for one in it.launcher.started] == [2]
