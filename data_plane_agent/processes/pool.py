"""The processes behind the launcher: families started and asked to import and fork, workers met,
lost and buried.

Owned by `launcher.py`, which is told through `Ears`; decides nothing about attempts.
"""

import asyncio
import json
import logging
import os
import secrets
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Protocol

from whimbrel.bundle import extract_bundle
from whimbrel.errors import WhimbrelError
from whimbrel.runtime_frames import PROTOCOL, Message, encode, socket_path, start_time
from whimbrel.runtime_worker import Seat
from whimbrel.spec import Failure, Owner

from data_plane_agent.processes.gone import end_all_of
from data_plane_agent.processes.settings import ProcessSettings
from data_plane_agent.processes.workers import (
    EXIT_SECONDS,
    Connection,
    FamilyKey,
    FamilyProcess,
    WorkerProcess,
    spawn_family,
)

log = logging.getLogger(__name__)

HELLO_SECONDS = 30.0
"""From asking for a fork to hearing from it. Too short forks twice on a busy machine, too long
leaves tasks waiting."""
FAMILY_TRIES = 3

FetchBundle = Callable[[str], Awaitable[Path]]
"""Digest to the folder of extracted code, or to the archive; WhimbrelError of the user's if it is
no good."""


class Ears(Protocol):
    def imported(self, family: FamilyProcess, module: str) -> None: ...
    def broken(self, family: FamilyProcess, modules: list[str], failure: Failure) -> None: ...
    def hello(self, worker: WorkerProcess, message: Message) -> None: ...
    def heard(self, worker: WorkerProcess, message: Message) -> None: ...
    def dead(self, worker: WorkerProcess) -> None: ...
    def settled(self) -> None: ...


class Pool:
    """`open` listens; `tick` finds what no socket tells. All else happens as messages come."""

    def __init__(
        self, settings: ProcessSettings, ears: Ears, *, fetch_bundle: FetchBundle, store: str
    ) -> None:
        self.data_dir = settings.data_dir.resolve()
        self.families: dict[str, FamilyProcess] = {}
        self._by_key: dict[FamilyKey, FamilyProcess] = {}
        self.workers: dict[str, WorkerProcess] = {}
        self._ears = ears
        self._fetch = fetch_bundle
        self._store, self._settings = store, settings
        self._server: asyncio.Server | None = None
        self._connections: set[Connection] = set()
        self._closed = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._leaving: list[FamilyProcess] = []
        self._loop = asyncio.get_event_loop()

    @property
    def socket(self) -> Path:
        return self.data_dir / "worker.sock"

    @property
    def folder(self) -> Path:
        return self.data_dir / "workers"

    async def open(self) -> None:
        self._loop = asyncio.get_running_loop()
        for name in ("workers", "spool", "work", "bundles"):
            (self.data_dir / name).mkdir(parents=True, exist_ok=True)
        self.socket.unlink(missing_ok=True)
        self._server = await self._loop.create_unix_server(
            self._connection, socket_path(self.socket)
        )

    async def close(self, *, kill: bool) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if kill:
            for worker in self.workers.values():
                worker.kill()
                worker.forget_files()
            for family in [*self.families.values(), *self._leaving]:
                self._kill(family)
            self._kill_strangers()
            self.socket.unlink(missing_ok=True)
        self._closed = True
        for connection in list(self._connections):
            connection.drop()
        if kill:
            await self._gone()

    def family(self, key: FamilyKey) -> FamilyProcess:
        family = self._by_key.get(key)
        if family is None:
            family = self._by_key[key] = self._known(key.id)
            family.key = key
        return family

    def need(self, family: FamilyProcess, module: str) -> None:
        """See that the family lives and has imported `module`; `Ears` hears when, or why not."""
        if family.transport is None:
            if not family.starting and family.key is not None:
                family.starting = True
                self._spawn_task(self._start(family, family.key))
        elif module not in family.asked:
            self._ask(family, module)

    def fork(self, family: FamilyProcess) -> WorkerProcess:
        name = f"{family.id[:6]}-{secrets.token_hex(5)}"
        worker = WorkerProcess(name, family, self.folder, self._loop.time())
        self.workers[name] = family.workers[name] = worker
        family.send({"fork": name})
        return worker

    def adopt(self, name: str, family_id: str) -> WorkerProcess | None:
        family = self._known(family_id)
        worker = WorkerProcess(name, family, self.folder, self._loop.time())
        if not worker.meet() or not worker.alive():
            end_all_of([worker])
            worker.forget_files()
            return None
        assert worker.page is not None
        worker.page.revoked_from = 0  # what its last agent queued there must not begin any more
        self.workers[name] = family.workers[name] = worker
        return worker

    def end_family(self, family: FamilyProcess) -> None:
        del self.families[family.id]
        if family.key is not None:
            self._by_key.pop(family.key, None)
        for worker in family.workers.values():
            worker.dying = True
            worker.send([{"stop": True}])
        family.idle.clear()
        family.send({"stop": True})
        if family.pid:
            self._leaving.append(family)

    def bury(self, worker: WorkerProcess) -> None:
        """Its process is gone: whatever it started goes with it."""
        if self.workers.pop(worker.name, None) is None:
            return
        worker.kill()
        worker.family.workers.pop(worker.name, None)
        if worker in worker.family.idle:
            worker.family.idle.remove(worker)
        self._ears.dead(worker)
        worker.buried.set()

    def tick(self) -> None:
        now = self._loop.time()
        for worker in list(self.workers.values()):
            if worker.pid == 0:
                gone = now - worker.born > HELLO_SECONDS or worker.family.transport is None
            elif worker.lost_at:
                gone = worker.mourned(now - worker.lost_at)
            else:
                gone = False
                if (worker.dying or worker.transport is None) and not worker.alive():
                    worker.lost_at = now
            if gone:
                self.bury(worker)
        for family in list(self.families.values()):
            overdue = family.asked - family.ready
            limit = self._settings.import_seconds
            if overdue and family.transport and now - family.asked_at > limit:
                self._kill(family)
                text = f"importing {', '.join(overdue)} took longer than {limit:g} s"
                family.asked &= family.ready
                self._ears.broken(family, list(overdue), Failure(Owner.USER, "import", text))
            elif (family.starting or overdue) and family.pid:
                self._check(family)
        self._leaving = [family for family in self._leaving if family.reap() is None]

    def _kill_strangers(self) -> None:
        """Families of earlier agents that have not come back yet."""
        for file in self.folder.glob("family-*.pid"):
            with suppress(OSError, ValueError):
                about = json.loads(file.read_text())
                if start_time(about["pid"]) == about["start"]:
                    os.kill(about["pid"], signal.SIGKILL)
            file.unlink(missing_ok=True)

    async def _gone(self) -> None:
        """Wait, not for ever, until the kernel has taken what was killed."""
        deadline = self._loop.time() + EXIT_SECONDS
        families = [family for family in [*self.families.values(), *self._leaving] if family.pid]
        while self._loop.time() < deadline:
            families = [family for family in families if family.reap() is None]
            if not families and not any(worker.alive() for worker in self.workers.values()):
                return
            await asyncio.sleep(0.005)

    def _known(self, family_id: str) -> FamilyProcess:
        if family_id not in self.families:
            self.families[family_id] = FamilyProcess(family_id, used_at=self._loop.time())
        return self.families[family_id]

    # -- families ---------------------------------------------------------------------------------

    async def _start(self, family: FamilyProcess, key: FamilyKey) -> None:
        pause = 0.5
        while True:
            try:
                code = await self._code(key.bundle)
                if family.transport is None:  # else one of an earlier agent's came back meanwhile
                    self._spawn(family, key, code)
                return
            except WhimbrelError as error:
                if error.owner is not Owner.SYSTEM:
                    family.starting = False
                    failure = Failure(error.owner, "import", str(error))
                    self._ears.broken(family, list(family.pending), failure)
                    return
                log.warning("bundle %s can't be fetched, trying again: %s", key.bundle, error)
            except OSError as error:
                log.warning("no process for %s, trying again: %s", key.bundle, error)
            await asyncio.sleep(pause)
            pause = min(pause * 2, 10.0)

    def _spawn(self, family: FamilyProcess, key: FamilyKey, code: Path) -> None:
        seat = Seat(
            family=family.id,
            socket=socket_path(self.socket),
            data_dir=str(self.data_dir),
            bundle=str(code),
            store=self._store,
            region=self._settings.region,
            orphan_seconds=self._settings.orphan_seconds,
            leak_bytes=self._settings.leak_bytes,
            exclusive=key.exclusive,
            mark=f"{family.id}-{secrets.token_hex(8)}",
        )
        family.pid = spawn_family(
            asdict(seat),
            environment=dict(key.environment),
            log=self.folder / f"family-{family.id}.log",
        )
        family.started = start_time(family.pid)
        about = {"pid": family.pid, "start": family.started}
        (self.folder / f"family-{family.id}.pid").write_text(json.dumps(about))

    async def _code(self, digest: str) -> Path:
        found = await self._fetch(digest)
        if found.is_dir():
            return found.resolve()
        target = self.data_dir / "bundles" / digest
        if not target.is_dir():
            fresh = target.with_name(f"{digest}.{secrets.token_hex(4)}")
            await asyncio.to_thread(extract_bundle, found, fresh)
            with suppress(OSError):  # another one was first
                fresh.rename(target)
        return target

    def _ask(self, family: FamilyProcess, module: str) -> None:
        family.asked.add(module)
        family.asked_at = self._loop.time()
        family.send({"import": module})

    def _check(self, family: FamilyProcess) -> None:
        status = family.reap()
        if status is None:
            return
        family.pid, family.starting, family.transport = 0, False, None
        family.ready.clear()
        family.asked.clear()
        family.deaths += 1
        modules = list(family.pending)
        if not modules:
            return
        names = ", ".join(modules)
        if status >= 0 or -status != signal.SIGKILL:
            how = f"status {status}" if status >= 0 else signal.Signals(-status).name
            text = f"importing {names} ended the process with {how}"
            self._ears.broken(family, modules, Failure(Owner.USER, "import", text))
        elif family.deaths >= FAMILY_TRIES:
            text = f"the process that imports {names} was killed {family.deaths} times"
            self._ears.broken(family, modules, Failure(Owner.SYSTEM, "worker_lost", text))
        else:
            self._ears.settled()  # its tasks wait: they ask for it again

    def _kill(self, family: FamilyProcess) -> None:
        if family.alive():
            with suppress(ProcessLookupError):
                os.kill(family.pid, signal.SIGKILL)

    # -- what is said -----------------------------------------------------------------------------

    def _connection(self) -> Connection:
        connection = Connection(self._heard, self._ended, self._ears.settled)
        if self._closed:  # somebody dialled in just before
            connection.drop()
        self._connections.add(connection)
        return connection

    def _heard(self, connection: Connection, message: Message) -> None:
        match connection.peer, message:
            case None, {"t": "hello", "v": version, "name": str(name)}:
                worker = self.workers.get(name)
                if worker is None or version != PROTOCOL or not (worker.pid or worker.meet()):
                    self._refuse(connection)
                    return
                connection.peer, worker.transport = worker, connection.transport
                worker.lost_at = 0.0
                self._ears.hello(worker, message)
            case None, {"t": "family", "v": version, "id": str(identity), "pid": int(pid)}:
                family = self.families.get(identity)
                if family is None or family.transport is not None or version != PROTOCOL:
                    self._refuse(connection)
                    return
                self._greet(family, connection, pid, message)
            case FamilyProcess() as family, {"t": "imported", "module": str(module)}:
                family.ready.add(module)
                family.deaths = 0
                self._ears.imported(family, module)
            case FamilyProcess() as family, {"t": "broken", "module": str(module), **rest}:
                family.asked.discard(module)
                failure = Failure(Owner.USER, "import", rest["message"], traceback=rest["tb"])
                self._ears.broken(family, [module], failure)
            case FamilyProcess(), {"t": "exited", "name": str(name), "status": int(status)}:
                if worker := self.workers.get(name):
                    worker.exit_status = status
                    if worker.pid == 0 or worker.transport is None:
                        self.bury(worker)
                    else:
                        worker.lost_at = self._loop.time()
            case WorkerProcess() as worker, _:
                self._ears.heard(worker, message)
            case _:
                log.warning("a worker said what nobody understands: %s", message.get("t"))

    def _greet(
        self, family: FamilyProcess, connection: Connection, pid: int, message: Message
    ) -> None:
        if family.pid not in (0, pid):  # ours is still starting; the older one came back first
            self._kill(family)
        family.pid, family.started = pid, start_time(pid)
        family.starting = False
        connection.peer, family.transport = family, connection.transport
        family.ready = set(message["modules"])
        family.asked = set(family.ready)
        for module in list(family.pending):
            if module in family.ready:
                self._ears.imported(family, module)
            else:
                self._ask(family, module)

    def _refuse(self, connection: Connection) -> None:
        """Nobody waits for this process any more."""
        if connection.transport is not None:
            connection.transport.write(encode({"stop": True}))

    def _ended(self, connection: Connection) -> None:
        self._connections.discard(connection)
        match connection.peer:
            case WorkerProcess() as worker:
                worker.transport = None
                worker.lost_at = self._loop.time()
                if worker in worker.family.idle:
                    worker.family.idle.remove(worker)
                if worker.known_end:
                    self.bury(worker)
            case FamilyProcess() as family:
                family.transport = None
                family.asked &= family.ready
                family.starting = bool(family.pid)
                self._check(family)
            case None:
                pass

    def _spawn_task(self, work: Awaitable[None]) -> None:
        async def run() -> None:
            await work

        task = asyncio.ensure_future(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
