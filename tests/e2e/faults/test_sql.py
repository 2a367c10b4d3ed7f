"""The database restarts in the middle, is away for a while, or answers too late."""

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests.control_plane import postgres
from tests.control_plane.postgres import Postgres
from tests.e2e.federation import Federation, Run, eventually

TTL = 2.0


@pytest.fixture
def stored(tmp_path: Path) -> Iterator[tuple[Federation, Postgres]]:
    """A federation on PostgreSQL."""
    with postgres.server() as server:
        if server is None:
            pytest.skip("no PostgreSQL on this machine")
        environment = {"WHIMBREL_CONTROL_PLANE_DATABASE_URL": server.url}
        federation = Federation(tmp_path, environment=environment)
        federation.start()
        try:
            yield federation, server
        finally:
            federation.stop()


def rows(server: Postgres, sql: str) -> list[Any]:
    async def ask() -> list[Any]:
        connection = await asyncpg.connect(server.url.replace("+asyncpg", ""))
        try:
            return await connection.fetch(sql)
        finally:
            await connection.close()

    return asyncio.run(ask())


@pytest.mark.fault(25, 28)
def test_postgresql_stops_at_once_and_is_away(stored: tuple[Federation, Postgres]) -> None:
    """Once in the middle of commits, once for longer than a session lasts."""
    federation, server = stored
    many = federation.launch("many", program="many", workflow="many")
    waiting = federation.launch("waiting")
    waiting_region = gate_region(waiting)
    eventually("commits have begun", lambda: rows(server, "SELECT 1 FROM node_output LIMIT 1"))
    server.stop_at_once()
    server.start()
    server.stop_at_once()
    waiting.open()
    eventually("the region goes on alone", lambda: len(waiting.journal()) == 3)
    time.sleep(2 * TTL)  # the fault itself: away for longer than a session lasts
    server.start()
    for run in (many, waiting):
        done = eventually(
            f"{run.name} arrives", lambda r=run: (e := r.execution)["phase"] == "SUCCEEDED" and e
        )
        assert [p["cause"] for p in done["placements"]] == ["launch"]
    assert waiting.execution["cluster"] == waiting_region
    doubled = rows(
        server,
        "SELECT execution, node FROM node_output WHERE live GROUP BY 1, 2 HAVING count(*) > 1",
    )
    assert doubled == []
    assert rows(server, "SELECT count(*) FROM node_output WHERE live")[0][0] == 301 + 3


def gate_region(run: Run) -> str:
    def found() -> str:
        lines = run.journal()
        return lines[1][3] if len(lines) > 1 else ""

    return eventually(f"{run.name} reaches its gate", found)


@pytest.mark.fault(26)
def test_a_reply_to_a_commit_is_lost(federation: Federation) -> None:
    """The control plane stands still with commits in flight; the router gives up on them and
    dies, so nobody hears what was committed."""
    run = federation.launch("reply-lost", program="many", workflow="many")
    counted = "SELECT 1 FROM node_output WHERE execution = :x LIMIT 1"
    eventually("commits have begun", lambda: run.row(counted))
    for _ in range(3):
        pid = federation.signal("control-plane", signal.SIGSTOP)
        federation.kill_and_await_restart("router", "router-2")
        os.kill(pid, signal.SIGCONT)
    run.await_phase("SUCCEEDED")
    assert len(run.row("SELECT 1 FROM node_output WHERE execution = :x")) == 301
    assert run.causes() == ["launch"]
