"""The agent's stream to whichever router answers: Hello, Welcome, assignments, questions.

Run by `__main__`; tells the engine what is wanted and the guard where the session stands; answers
questions. A broken stream is no lost session: it says Hello again and goes on, at the next router.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass
from typing import Any, Protocol

from whimbrel.errors import Refused, Unreachable, WhimbrelError

from data_plane_agent import messages as m
from data_plane_agent.fence import SessionOver, State, Superseded, Welcomed
from data_plane_agent.guard import Guard
from data_plane_agent.pause import Pause

log = logging.getLogger(__name__)

WELCOME_SECONDS = 10.0
"""From Hello to Welcome. Shorter gives up on a router whose database is slow; longer stays with a
frozen one."""


class Door(Protocol):
    @property
    def address(self) -> str: ...
    def session(self, said: AsyncIterator[m.FromAgent]) -> AsyncIterator[m.FromRouter]: ...
    async def rotate(self) -> None: ...


class Beating(Protocol):
    last_ack_n: int

    def begin(self, welcome: m.Welcome, *, address: str) -> None: ...
    def end(self) -> None: ...
    def close(self) -> None: ...


class Worker(Protocol):
    """What the session needs of the engine."""

    def joined(self, cluster_epoch: int, *, resumed: bool) -> None: ...
    def assigned(self, heard: m.All | m.Changed | m.Removed) -> None: ...
    def load(self) -> m.Load: ...


class Answering(Protocol):
    async def answer(self, question: m.Question) -> m.Answer: ...


@dataclass(frozen=True, slots=True)
class Identity:
    """`incarnation` is new at every start of the process."""

    cluster: str
    region: str
    incarnation: str
    version: str


class Session:
    def __init__(
        self,
        identity: Identity,
        *,
        door: Door,
        engine: Worker,
        guard: Guard,
        heartbeat: Beating,
        questions: Answering,
    ) -> None:
        self._identity = identity
        self._door = door
        self._engine = engine
        self._guard = guard
        self._heartbeat = heartbeat
        self._questions = questions
        self._session = ""
        self._break = asyncio.Event()
        self._pause = Pause()
        self._aside: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        guard.on_change(self._changed)

    async def run(self) -> None:
        """For ever. Refused when another agent of this cluster has taken over."""
        try:
            while True:
                try:
                    await self._once()
                except WhimbrelError as error:
                    if isinstance(error, Refused):
                        raise
                    log.warning("no session with %s: %s", self._door.address, error)
                await self._pause.wait()
                await self._door.rotate()
        finally:
            await asyncio.to_thread(self._heartbeat.close)

    def renew(self) -> None:
        """Give this session up and ask for another one. Callable on any thread."""
        self._loop.call_soon_threadsafe(self._over)

    def _over(self) -> None:
        self._session = ""
        self._break.set()

    def _changed(self, old: State, new: State) -> None:
        log.info("session %s -> %s", old, new)
        if new in (State.JEOPARDY, State.JOINING) and not self._loop.is_closed():
            # Perhaps this router alone is cut off: say Hello to another one.
            self._loop.call_soon_threadsafe(self._break.set)

    async def _once(self) -> None:
        self._break.clear()
        reading = asyncio.create_task(self._read(), name="session stream")
        breaking = asyncio.create_task(self._break.wait(), name="session break")
        try:
            await asyncio.wait([reading, breaking], return_when=asyncio.FIRST_COMPLETED)
        finally:
            breaking.cancel()
            reading.cancel()
            await asyncio.wait([reading, breaking])
        if not reading.cancelled():
            reading.result()

    async def _read(self) -> None:
        out: asyncio.Queue[m.FromAgent] = asyncio.Queue()
        sent_ns = self._guard.now()
        out.put_nowait(self._hello())
        stream = self._door.session(_said(out))
        try:
            async with asyncio.timeout(WELCOME_SECONDS):
                first = await anext(stream)
        except TimeoutError:
            raise Unreachable(f"{self._door.address} does not answer a Hello") from None
        except StopAsyncIteration:
            raise Unreachable(f"{self._door.address} ended the stream") from None
        if isinstance(first, m.Welcome):
            self._welcomed(first, sent_ns)
        else:
            self._heard(first, out)
        async for heard in stream:
            self._heard(heard, out)

    def _hello(self) -> m.Hello:
        who = self._identity
        return m.Hello(
            cluster=who.cluster,
            incarnation=who.incarnation,
            version=who.version,
            resume_session=self._session,
            last_ack_n=self._heartbeat.last_ack_n,
            region=who.region,
            load=self._engine.load(),
        )

    def _welcomed(self, welcome: m.Welcome, sent_ns: int) -> None:
        self._pause.over()
        self._pause.longest = welcome.ttl_seconds
        ttl_ns = int(welcome.ttl_seconds * 1e9)
        resumed = welcome.resumed and welcome.session == self._session
        self._session = welcome.session
        self._heartbeat.end()
        self._guard.hear(Welcomed(sent_ns, ttl_ns, resumed))
        self._engine.joined(welcome.cluster_epoch, resumed=resumed)
        self._heartbeat.begin(welcome, address=self._door.address)
        log.info(
            "session %s with %s",
            "resumed" if resumed else "opened",
            self._door.address,
            extra={"cluster_epoch": welcome.cluster_epoch},
        )

    def _heard(self, heard: m.FromRouter, out: asyncio.Queue[m.FromAgent]) -> None:
        match heard:
            case m.All() | m.Changed() | m.Removed():
                self._engine.assigned(heard)
            case m.Probe() | m.Copy() | m.ReadLog() | m.OtherQuestion():
                self._spawn(self._answer(heard, out))
            case m.Bye("superseded"):
                self._guard.hear(Superseded())
                raise Refused(
                    f"another agent of cluster {self._identity.cluster} has taken over",
                    remedy="run one agent a cluster; stop this one, or give it another cluster",
                )
            case m.Bye("session_over"):
                self._guard.hear(SessionOver())
                self._over()
            case m.Bye(reason):
                raise Unreachable(f"the router said bye: {reason}")
            case m.Welcome():
                log.warning("a second Welcome on one stream is ignored")

    async def _answer(
        self,
        question: m.Question,
        out: asyncio.Queue[m.FromAgent],
    ) -> None:
        out.put_nowait(await self._questions.answer(question))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name="question")
        self._aside.add(task)
        task.add_done_callback(self._aside.discard)


async def _said(out: asyncio.Queue[m.FromAgent]) -> AsyncIterator[m.FromAgent]:
    while True:
        yield await out.get()
