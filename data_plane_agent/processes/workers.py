"""Families and workers as the launcher sees them: a process, its socket, its page of memory, what
it was given.

Driven by `launcher.py`; the other end is `whimbrel.runtime` (the family) and
`whimbrel.runtime_worker` (a worker).
"""

import asyncio
import json
import os
import shutil
import signal
import sys
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from whimbrel.runtime_frames import NEVER, Decoder, Message, Now, StatePage, encode, start_time
from whimbrel.spec import Failure, sha256

from data_plane_agent.launcher import AttemptKey

FAST_SECONDS = 0.005
"""Tasks of a lane that are shorter on average are handed out ahead. Longer ones gain nothing from
it."""
AHEAD = 16
"""Tasks in a worker's hands at most. Fewer leave it waiting for messages, more only wait in another
place."""


MARK = "WHIMBREL_FAMILY"
EXIT_SECONDS = 2.0
"""From a worker's silence to its burial without knowing how it ended."""
LAST_WORDS_SECONDS = 0.3
"""From its known end to its burial while its socket stays open, as a child of its own may keep
it."""


@dataclass(frozen=True, slots=True)
class FamilyKey:
    """What may share one imported copy of the user's code. `exclusive` attempts have families of
    their own, which see that nothing of a dead worker goes on; one imports one `module`, so that it
    is never ended for what another one does at its import."""

    bundle: str
    project: str
    domain: str
    environment: tuple[tuple[str, str], ...]
    exclusive: bool = False
    module: str = ""

    @property
    def id(self) -> str:
        return sha256(json.dumps(asdict(self)))[:16]


@dataclass(eq=False, slots=True)
class Record:
    """One attempt from `start` until its end was taken. `frame` is None for one adopted from an
    earlier agent; `spooled`: its answer may be a file."""

    key: AttemptKey
    input_digest: str
    lane: "Lane"
    timeout_seconds: float
    mem_limit: int
    frame: Message | None
    module: str = ""
    worker: "WorkerProcess | None" = None
    seq: int = 0
    announced: bool = False
    exclusive: bool = False
    renewable: bool = False
    quiesced: bool = False
    spooled: bool = False


@dataclass(eq=False, slots=True)
class Lane:
    """Attempts of one family with the same requests wait in one row."""

    family: "FamilyProcess"
    cpu: float
    mem: int
    queue: deque[Record] = field(default_factory=deque[Record])
    seconds: float = 1.0

    @property
    def fast(self) -> bool:
        return self.seconds < FAST_SECONDS

    def learn(self, seconds: float) -> None:
        weight = 0.2 if seconds < self.seconds else 0.5
        self.seconds += weight * (seconds - self.seconds)


@dataclass(eq=False, slots=True)
class WorkerProcess:
    """`assigned` by number, in order; the first is what runs. `untaken` have ended and are not on
    the agent's disk yet. `doom` is why the launcher killed it. `parent` is its family's process,
    with the start time; `mark` is in the environment of all that descends from that."""

    name: str
    family: "FamilyProcess"
    folder: Path
    born: float
    pid: int = 0
    started: int = 0
    page: StatePage | None = None
    transport: asyncio.WriteTransport | None = None
    lane: Lane | None = None
    assigned: dict[int, Record] = field(default_factory=dict[int, Record])
    untaken: set[int] = field(default_factory=set[int])
    last_seq: int = 0
    settled: int = 0
    acked: int = 0
    ack_due: int = 0
    revoked_last: int = 0
    doom: Failure | None = None
    doom_seq: int = 0
    exclusive: bool = False
    parent: tuple[int, int] = (0, 0)
    mark: str = ""
    dying: bool = False
    lost_at: float = 0.0
    exit_status: int | None = None
    buried: asyncio.Event = field(default_factory=asyncio.Event)

    def now(self) -> Now:
        return self.page.now if self.page else Now(0, False, 0, 0, 0)

    def file(self, kind: str) -> Path:
        return self.folder / f"{self.name}.{kind}"

    def meet(self) -> bool:
        """Learn its process and map its page; False when it left nothing behind."""
        try:
            about = json.loads(self.file("json").read_text())
            self.page = StatePage(self.file("state"))
        except (OSError, ValueError):
            return False
        self.pid, self.started = about["pid"], about["start"]
        self.exclusive = about.get("exclusive", False)
        self.parent, self.mark = tuple(about.get("parent", (0, 0))), about.get("mark", "")
        self.last_seq = max(self.last_seq, self.page.now.seq)
        return True

    def alive(self) -> bool:
        return self.pid != 0 and start_time(self.pid) == self.started

    @property
    def known_end(self) -> bool:
        """Of exclusive work only its family can tell that nothing is left of it."""
        return self.exit_status is not None or (self.doom is not None and not self.exclusive)

    def mourned(self, seconds: float) -> bool:
        """After so long a silence no more will be known about its end."""
        if self.known_end:
            return seconds > LAST_WORDS_SECONDS
        return seconds > EXIT_SECONDS and not (self.exclusive and self.kept)

    @property
    def kept(self) -> bool:
        """Its family lives, which ends what it leaves behind and tells of its end."""
        pid, started = self.parent
        return pid != 0 and start_time(pid) == started

    def kill(self) -> None:
        """With everything it started: a worker leads its own session."""
        self.dying = True
        if self.pid and (self.alive() or self.exit_status is not None):
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)

    def send(self, messages: list[Message]) -> None:
        if self.ack_due > self.acked:
            self.acked = self.ack_due
            messages.append({"ack": self.acked})
        if self.transport is not None and messages:
            self.transport.write(encode(messages))

    def take_back(self) -> list[Record]:
        """Everything it has not begun, safely: see `StatePage`."""
        if self.page is None or self.revoked_last:
            return []
        begun = self.page.now.seq
        self.page.revoked_from = begun + 1
        begun = self.page.now.seq
        taken = [record for seq, record in self.assigned.items() if seq > begun]
        if not taken:
            self.page.revoked_from = NEVER
            return []
        self.revoked_last = taken[-1].seq
        for record in taken:
            del self.assigned[record.seq]
            record.worker = None
        return taken

    def dropped(self, seq: int) -> Record | None:
        """It met a task that was taken back; a record is returned when nobody else has it."""
        if seq == self.revoked_last and self.page is not None:
            self.revoked_last = 0
            self.page.revoked_from = NEVER
        return self.assigned.pop(seq, None)

    def forget_files(self) -> None:
        if self.page is not None:
            self.page.close()
            self.page = None
        for kind in ("json", "state", "out", "err"):
            self.file(kind).unlink(missing_ok=True)
        shutil.rmtree(self.folder.parent / "work" / self.name, ignore_errors=True)


@dataclass(eq=False, slots=True)
class FamilyProcess:
    """The parent that imported the code of one (bundle, project, domain, environment)."""

    id: str
    key: FamilyKey | None = None
    pid: int = 0
    started: int = 0
    transport: asyncio.WriteTransport | None = None
    starting: bool = False
    deaths: int = 0
    used_at: float = 0.0
    asked_at: float = 0.0
    ready: set[str] = field(default_factory=set[str])
    asked: set[str] = field(default_factory=set[str])
    pending: dict[str, deque[Record]] = field(default_factory=dict[str, deque[Record]])
    lanes: dict[tuple[float, int], Lane] = field(default_factory=dict[tuple[float, int], Lane])
    workers: dict[str, WorkerProcess] = field(default_factory=dict[str, WorkerProcess])
    idle: list[WorkerProcess] = field(default_factory=list[WorkerProcess])

    def lane(self, cpu: float, mem: int) -> Lane:
        return self.lanes.setdefault((cpu, mem), Lane(self, cpu, mem))

    def alive(self) -> bool:
        return self.pid != 0 and start_time(self.pid) == self.started

    def send(self, message: Message) -> None:
        if self.transport is not None:
            self.transport.write(encode(message))

    def reap(self) -> int | None:
        """Exit status if the process has ended (negative: by that signal), None while it lives or
        if not ours."""
        if not self.pid:
            return None
        try:
            done, status = os.waitpid(self.pid, os.WNOHANG)
        except ChildProcessError:  # started by an earlier agent
            return None if start_time(self.pid) == self.started else -signal.SIGKILL
        return os.waitstatus_to_exitcode(status) if done else None


def spawn_family(seat: Message, *, environment: Mapping[str, str], log: Path) -> int:
    """The process id of a new family. Its own session: what stops the agent must not stop the
    work."""
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith("WHIMBREL_")
    }
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    return os.posix_spawn(
        sys.executable,
        [sys.executable, "-P", "-m", "whimbrel.runtime", "family", json.dumps(seat)],
        {**inherited, **environment, MARK: seat["mark"]},
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log), flags, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
    )


class Connection(asyncio.Protocol):
    """One process that dialled in. What it says goes to `heard`, batch by batch; its end to
    `ended`."""

    def __init__(
        self,
        heard: Callable[["Connection", Message], None],
        ended: Callable[["Connection"], None],
        after: Callable[[], None],
    ) -> None:
        self.peer: WorkerProcess | FamilyProcess | None = None
        self.transport: asyncio.WriteTransport | None = None
        self._heard, self._ended, self._after = heard, ended, after
        self._decoder = Decoder()
        self._dropped = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self.transport = transport
        if self._dropped:
            transport.close()

    def drop(self) -> None:
        """Nobody listens any more, also to one that is still being accepted."""
        self.peer, self._dropped = None, True
        if self.transport is not None:
            self.transport.close()

    def data_received(self, data: bytes) -> None:
        for message in self._decoder.feed(data):
            self._heard(self, message)
        self._after()

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended(self)
        self._after()
