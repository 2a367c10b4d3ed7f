"""What looks like an end, and is none: lost keys, unreadable runs, stores that answer late."""

import asyncio
from pathlib import Path
from typing import Any

from whimbrel.errors import InvalidInput
from whimbrel.spec import Artifact, Assignment, Want

from data_plane_agent import codec
from data_plane_agent import messages as m
from data_plane_agent.fence import State
from data_plane_agent.launcher import AttemptKey
from data_plane_agent.outbox import Entry
from tests.data_plane_agent.engine_under_test import X, agent, until
from tests.data_plane_agent.graphs import chain
from tests.data_plane_agent.test_engine_exclusive import exclusive, ledger_with
from tests.data_plane_agent.test_residency import Ledger
from tests.data_plane_agent.virtual_time import virtual


@virtual
async def test_a_lost_key_starts_no_second_copy_beside_an_exclusive_one(tmp_path: Path) -> None:
    """Deleted in etcd, and put again for the same epoch by a sweeper."""
    async with exclusive(tmp_path, ledger_with()) as one:
        await one.runs()
        one.it.launcher.unseen = True  # nobody could say that the first one is dead
        one.it.engine.assigned(m.Removed((Assignment(X, 1, "c", Want.RUN),)))
        await asyncio.sleep(0.05)
        one.it.assign(X)
        await asyncio.sleep(30)
        assert len(one.it.launcher.started) == 1
        assert one.it.launcher.cancelled == []


@virtual
async def test_a_removed_key_of_a_run_that_went_on_ends_it(tmp_path: Path) -> None:
    ledger = ledger_with()
    async with exclusive(tmp_path, ledger) as one:
        attempt = await one.runs()
        ledger.rows[X]["epoch"] = 2
        one.it.engine.assigned(m.Removed((Assignment(X, 1, "c", Want.RUN),)))
        await until(lambda: one.it.launcher.cancelled == [attempt.key])
        assert X not in one.it.engine.holdings.runs


class Newer:
    """A book of specifications that this agent can't read any more."""

    async def graph(self, digest: str) -> None:
        raise InvalidInput("a spec of a newer version")


@virtual
async def test_a_run_that_can_not_be_read_fails_once_what_was_found_is_dead(tmp_path: Path) -> None:
    ledger = ledger_with()
    async with exclusive(tmp_path, ledger, found={AttemptKey(X, "a", 1, 1): "d"}) as one:
        one.it.launcher.unseen = True
        one.it.engine._specs = Newer()  # type: ignore[assignment]
        await asyncio.sleep(60)
        assert ledger.rows[X]["end"] is None
        one.it.launcher.unseen = False
        assert isinstance(await one.it.end(), m.Failed)


@virtual
async def test_a_flapping_session_asks_once_for_each_death(tmp_path: Path) -> None:
    async with exclusive(tmp_path, ledger_with()) as one:
        await one.runs()
        one.it.launcher.unseen = True
        for _ in range(20):
            one.beating = False
            await until(lambda: one.it.guard.state is State.JEOPARDY)
            one.beating = True
            one.tick()
            await asyncio.sleep(1)
        assert len(one.it.engine._aside._tasks) <= 2


@virtual
async def test_a_result_that_is_stored_too_late_is_not_told_after_the_release(
    tmp_path: Path,
) -> None:
    ledger = Ledger(offload=True)
    ledger.launch(X, chain(1))
    loop = asyncio.get_running_loop()
    asked, stored = asyncio.Event(), asyncio.Event()
    said: list[m.Event | None] = []
    async with agent(
        tmp_path, ledger, lambda attempt: {"o0": "v"}, quiesce_seconds=5,
        clock=lambda: int(loop.time() * 1e9),
    ) as it:  # fmt: skip
        put = it.put

        async def slow(key: str, data: bytes, *, kind: str = "file") -> Artifact:
            if "/outputs/" in key:
                asked.set()
                await stored.wait()
            return await put(key, data, kind=kind)

        tell = it.outbox.put

        def heard(entries: list[Entry], **more: Any) -> Any:
            said.extend(codec.decode(entry.data) for entry in entries)
            return tell(entries, **more)

        it.put = slow  # type: ignore[method-assign]
        it.outbox.put = heard  # type: ignore[method-assign]
        it.assign(X)
        it.join(ttl_ns=3600 * 10**9)
        await asked.wait()
        it.assign(X, want=Want.QUIESCE)
        await asyncio.sleep(6)
        stored.set()
        await asyncio.sleep(1)
        assert [type(one) for one in said if isinstance(one, m.LAST)] == [m.Released]
