"""The session over a door that the test plays: resume, anew, superseded, questions; and the
heartbeat's words."""

import asyncio
import queue
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
from whimbrel.errors import Refused
from whimbrel.spec import Artifact, Assignment, Resources

from data_plane_agent import messages as m
from data_plane_agent.fence import Reconciled, State, Welcomed
from data_plane_agent.guard import Guard
from data_plane_agent.heartbeat import Heartbeat
from data_plane_agent.launcher import Capacity
from data_plane_agent.session import Identity, Session

pytestmark = pytest.mark.anyio

LOAD = m.Load(Capacity(Resources(), Resources(), 0, 0), 10, 0)


class FakeDoor:
    """Each stream: the test puts what the router says, and reads what the agent said."""

    def __init__(self) -> None:
        self.address = "r1"
        self.said: asyncio.Queue[m.FromAgent] = asyncio.Queue()
        self.streams: list[asyncio.Queue[m.FromRouter | None]] = []
        self.rotated = 0

    async def session(self, said: AsyncIterator[m.FromAgent]) -> AsyncIterator[m.FromRouter]:
        async def listen() -> None:
            async for one in said:
                self.said.put_nowait(one)

        mine: asyncio.Queue[m.FromRouter | None] = asyncio.Queue()
        self.streams.append(mine)
        listening = asyncio.create_task(listen())
        try:
            while (one := await mine.get()) is not None:
                yield one
        finally:
            listening.cancel()

    async def rotate(self) -> None:
        self.rotated += 1


class FakeEngine:
    def __init__(self) -> None:
        self.joins: list[tuple[int, bool]] = []
        self.wishes: list[m.All | m.Changed | m.Removed] = []

    def joined(self, cluster_epoch: int, *, resumed: bool) -> None:
        self.joins.append((cluster_epoch, resumed))

    def assigned(self, heard: m.All | m.Changed | m.Removed) -> None:
        self.wishes.append(heard)

    def held(self) -> tuple[m.Wish, ...]:
        return (m.Wish("p/d/x", 1),)

    def load(self) -> m.Load:
        return LOAD


class FakeHeartbeat:
    def __init__(self) -> None:
        self.last_ack_n = 4
        self.begun: list[str] = []

    def begin(self, welcome: m.Welcome, *, address: str) -> None:
        self.begun.append(welcome.session)

    def end(self) -> None:
        pass

    def close(self) -> None:
        pass


class FakeQuestions:
    async def answer(self, question: m.Probe | m.ReadLog | m.OtherQuestion) -> m.Answer:
        return m.Answer(question.id, unreadable=("file:///gone",))


class World:
    def __init__(self) -> None:
        self.now = 1
        self.guard = Guard(clock=lambda: self.now)
        self.door = FakeDoor()
        self.engine = FakeEngine()
        self.heartbeat = FakeHeartbeat()
        self.session = Session(
            Identity("c", "r", "i", "0"),
            door=self.door,
            engine=self.engine,
            guard=self.guard,
            heartbeat=self.heartbeat,
            questions=FakeQuestions(),
        )

    async def hello(self) -> m.Hello:
        async with asyncio.timeout(10):
            hello = await self.door.said.get()
        assert isinstance(hello, m.Hello)
        return hello

    def say(self, *words: m.FromRouter | None) -> None:
        for one in words:
            self.door.streams[-1].put_nowait(one)


def welcome(session: str, epoch: int, *, resumed: bool = False) -> m.Welcome:
    return m.Welcome(session, epoch, 10.0, 2.0, resumed)


async def until(true: object) -> None:
    assert callable(true)
    async with asyncio.timeout(10):
        while not true():
            await asyncio.sleep(0.001)


async def test_hello_welcome_resume_and_anew() -> None:
    world = World()
    running = asyncio.create_task(world.session.run())
    hello = await world.hello()
    assert (hello.resume_session, hello.last_ack_n) == ("", 4)
    everything = m.All((Assignment("p/d/x", 1, "c"),))
    world.say(welcome("s1", 1), everything)
    await until(lambda: world.engine.wishes == [everything])
    assert world.guard.state is State.RECONCILING
    world.guard.hear(Reconciled())

    world.say(None)  # the stream ends; the session does not
    hello = await world.hello()
    assert (hello.resume_session, world.door.rotated) == ("s1", 1)
    world.say(welcome("s1", 1, resumed=True))
    await until(lambda: len(world.engine.joins) == 2)
    assert world.guard.state is State.ACTIVE

    world.session.renew()
    assert (await world.hello()).resume_session == ""
    world.say(welcome("s2", 2))
    await until(lambda: len(world.engine.joins) == 3)
    assert world.engine.joins == [(1, False), (1, True), (2, False)]
    assert world.heartbeat.begun == ["s1", "s1", "s2"]
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_in_jeopardy_it_asks_another_router() -> None:
    world = World()
    running = asyncio.create_task(world.session.run())
    await world.hello()
    world.say(welcome("s1", 1))
    await until(lambda: world.engine.joins)
    world.guard.hear(Reconciled())
    world.now = 11_000_000_000
    assert world.guard.state is State.JEOPARDY
    assert (await world.hello()).resume_session == "s1"
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_superseded_ends_the_agent() -> None:
    world = World()
    running = asyncio.create_task(world.session.run())
    await world.hello()
    world.say(welcome("s1", 1), m.Bye("superseded"))
    with pytest.raises(Refused, match="taken over"):
        await running
    assert world.guard.state is State.FENCED


async def test_questions_are_answered() -> None:
    world = World()
    running = asyncio.create_task(world.session.run())
    await world.hello()
    probe = m.Probe("q", (Artifact("file:///gone", "0" * 64, 1, "r"),))
    world.say(welcome("s1", 1), probe)
    assert isinstance(await world.door.said.get(), m.Answer)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


class FakePulse:
    """A connection whose answers a test gives; `handled` once one was taken in."""

    def __init__(self) -> None:
        self.answers: queue.Queue[m.BeatAck | None] = queue.Queue()
        self.handled = threading.Event()
        self.closed = threading.Event()

    def send(self, beat: m.Beat) -> None:
        pass

    def acks(self) -> Iterator[m.BeatAck]:
        while (ack := self.answers.get()) is not None:
            yield ack
            self.handled.set()

    def close(self) -> None:
        self.closed.set()
        self.answers.put(None)

    def says(self, ack: m.BeatAck) -> None:
        self.handled.clear()
        self.answers.put(ack)
        assert self.handled.wait(10)


def heart(guard: Guard, over: list[None], pulses: list[FakePulse]) -> Heartbeat:
    def connect(_: str) -> FakePulse:
        pulses.append(FakePulse())
        return pulses[-1]

    return Heartbeat(
        cluster="c",
        addresses=["r1"],
        connect=connect,
        guard=guard,
        vitals=lambda: (LOAD, 3, True, "d"),
        on_over=lambda: over.append(None),
    )


OVER = m.BeatAck(2, 0, renewed=False, session_over=True)


def test_what_the_heartbeat_hears() -> None:
    guard, over, pulses = Guard(clock=lambda: 0), list[None](), list[FakePulse]()
    beating = heart(guard, over, pulses)
    beat = beating.next(welcome("s", 7))
    assert (beat.n, beat.cluster_epoch, beat.engine_progress) == (1, 7, 3)
    beating.begin(welcome("s", 7), address="r1")
    assert wait_for(lambda: pulses)
    pulses[0].says(m.BeatAck(1, 0, renewed=False, session_over=False))
    assert (beating.last_ack_n, over) == (1, [])
    pulses[0].says(OVER)
    assert over == [None]
    assert guard.state is State.JOINING
    beating.close()
    assert pulses[0].closed.is_set()


def test_a_late_word_about_an_earlier_session_does_not_end_this_one() -> None:
    guard, over, pulses = Guard(clock=lambda: 0), list[None](), list[FakePulse]()
    beating = heart(guard, over, pulses)
    beating.begin(welcome("s1", 1), address="r1")
    earlier = beating._beats
    assert earlier is not None
    beating.end()
    guard.hear(Welcomed(0, 10**10, resumed=False))
    beating.heard(OVER, of=earlier)
    beating.begin(welcome("s2", 2), address="r1")
    beating.heard(OVER, of=earlier)
    assert (over, guard.state) == ([], State.RECONCILING)
    beating.close()
    assert wait_for(lambda: all(pulse.closed.is_set() for pulse in pulses))


def wait_for(true: Callable[[], object]) -> bool:
    """Of another thread, which needs no time to speak of."""
    deadline = time.monotonic() + 10
    while not true() and time.monotonic() < deadline:
        time.sleep(0.001)
    return bool(true())
