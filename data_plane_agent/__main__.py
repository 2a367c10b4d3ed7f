"""The composition root of the agent: settings -> launcher, router -> engine, session, heartbeat.

Started as `python -m data_plane_agent`, one a cluster. A stop leaves running tasks to the next
start, unless told otherwise (a drain lets go of every run first); what the ledger does not know
yet lies in the outbox.
"""

import asyncio
import contextlib
import fcntl
import logging
import os
import secrets
import sys
from collections.abc import Generator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pydantic import ValidationError
from pydantic_settings import CliApp, SettingsError
from whimbrel.errors import Refused, WhimbrelError
from whimbrel.service.http import serve_http
from whimbrel.service.logs import setup_logging
from whimbrel.service.process import run_until_stopped
from whimbrel.service.telemetry import setup_tracing

from data_plane_agent import compute
from data_plane_agent.copies import Copies
from data_plane_agent.engine import Engine
from data_plane_agent.guard import Guard
from data_plane_agent.heartbeat import Heartbeat
from data_plane_agent.longest_ttl import LongestTtl
from data_plane_agent.outbox import Outbox
from data_plane_agent.questions import Questions
from data_plane_agent.rpc import Gateway, Pulse
from data_plane_agent.session import Identity, Session
from data_plane_agent.settings import Settings, problems
from data_plane_agent.spans import Spans
from data_plane_agent.specs import Specs

log = logging.getLogger("data_plane_agent")


async def run(settings: Settings, stop: asyncio.Event) -> None:
    """Works until `stop` is set; raises Refused when another agent of this cluster takes over."""
    folder = settings.data_dir
    gateway = Gateway(settings.routers, cluster=settings.cluster)

    async def fetch_bundle(digest: str) -> Path:
        archive = folder / "archives" / digest
        if not archive.exists():
            await gateway.fetch_bundle(digest, archive)
        return archive

    longest = LongestTtl(folder / "longest-ttl")
    guard = Guard(
        autonomy_seconds=settings.autonomy_seconds,
        longest_ns=longest.read(),
        remember=longest.write,
    )
    launcher = await compute.connect(settings, fetch_bundle=fetch_bundle, renewal=guard)
    tracer = setup_tracing(
        "data_plane_agent", endpoint=settings.otlp_endpoint, region=settings.region
    )
    ratio = settings.trace_ratio if settings.otlp_endpoint else 0.0
    engine = Engine(
        launcher=launcher,
        ledger=gateway,
        outbox=Outbox(folder / "outbox"),
        store=launcher.blobs,
        specs=Specs(folder / "specs", gateway),
        guard=guard,
        spans=Spans(tracer, ratio=ratio),
        max_executions=settings.max_executions,
        renew=lambda: session.renew(),
        quiesce_seconds=settings.quiesce_seconds,
    )
    heartbeat = Heartbeat(
        cluster=settings.cluster,
        addresses=settings.routers,
        connect=Pulse,
        guard=guard,
        vitals=engine.vitals,
        on_over=lambda: session.renew(),
    )
    session = Session(
        Identity(settings.cluster, settings.region, secrets.token_hex(16), _version()),
        door=gateway,
        engine=engine,
        guard=guard,
        heartbeat=heartbeat,
        questions=Questions(
            engine=engine, store=launcher.blobs, copies=Copies(launcher.blobs), live=launcher
        ),
    )
    http = None
    try:
        await launcher.open()
        http = await serve_http(settings.http, ready=lambda: engine.reconciled)
        async with asyncio.TaskGroup() as tasks:
            working = [
                tasks.create_task(engine.run(), name="engine"),
                tasks.create_task(session.run(), name="session"),
            ]
            log.info("cluster %s in %s is at work", settings.cluster, settings.region)
            await stop.wait()
            if settings.drain_seconds:
                await _drain(engine, seconds=settings.drain_seconds)
            for task in working:
                task.cancel()
    except* WhimbrelError as group:
        raise _first(group) from group
    finally:
        if http is not None:
            http.close()
        await launcher.close(kill=settings.kill_workers_at_stop)
        await gateway.close()


async def _drain(engine: Engine, *, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await engine.drain()
    except TimeoutError:
        left = ", ".join(one.execution for one in engine.held()[:10])
        log.warning("not everything could be let go of in %g s: %s", seconds, left)
    else:
        log.info("drained: every run is let go of")


def _first(group: BaseExceptionGroup[WhimbrelError]) -> WhimbrelError:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error


def _version() -> str:
    try:
        return version("whimbrel")
    except PackageNotFoundError:
        return "unknown"


@contextlib.contextmanager
def _alone(folder: Path) -> Generator[None]:
    """One process a folder: two would tear each other's outbox."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise Refused(
            f"can't write to {folder}: {error.strerror}", remedy="give another --data-dir"
        ) from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise Refused(
            f"another agent works in {folder}", remedy="stop it, or give another --data-dir"
        ) from error
    try:
        yield
    finally:
        os.close(file)


def main() -> int:
    try:
        settings = CliApp.run(Settings)
    except ValidationError as error:
        for problem in problems(error):
            print(f"data_plane_agent: {problem}", file=sys.stderr)  # noqa: T201
        return 2
    except SettingsError as error:
        print(f"data_plane_agent: {error}", file=sys.stderr)  # noqa: T201
        return 2
    setup_logging("data_plane_agent", settings.log_level, settings.log_format)
    try:
        with _alone(settings.data_dir):
            asyncio.run(run_until_stopped(lambda stop: run(settings, stop)))
    except WhimbrelError as error:
        print(f"data_plane_agent: {error}", file=sys.stderr)  # noqa: T201
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
