"""Warm pods: attempts that may share a pod, to pods that stay ready, one after another.

Called by `routing.py` beside the launcher of single pods; `pool.py` decides who gets
what, `door.py` holds the lines, `pods.py` makes and watches the pods. What it can't serve
it gives back (`fall_back`). After a restart the pods dial again and say what they run.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace

from whimbrel.runtime_frames import Message
from whimbrel.runtime_store import UnreadableInput
from whimbrel.spec import Failure, Owner, Resources

from data_plane_agent.aside import Aside
from data_plane_agent.launcher import (
    Attempt,
    AttemptEvent,
    AttemptKey,
    Broke,
    Finished,
    Started,
)
from data_plane_agent.news import News
from data_plane_agent.pods.orders import Orders
from data_plane_agent.warm.adoption import Adoption
from data_plane_agent.warm.door import Door, Line
from data_plane_agent.warm.making import START_SECONDS, Making
from data_plane_agent.warm.pool import Pool, PoolKey, Record, WarmPod, frame_of, reads_files
from data_plane_agent.warm.settings import WarmSettings
from data_plane_agent.warm.sight import Pods, Sighted
from data_plane_agent.warm.talk import Talk, Told

log = logging.getLogger(__name__)

TICK_SECONDS = 0.02
"""Between two looks at busy pods. A task that lasts longer is told of as started."""
IDLE_TICK_SECONDS = 0.5
FallBack = Callable[[Sequence[Attempt]], Awaitable[None]]


class WarmPools:
    """`open` before anything else; `close(kill=False)` leaves the pods to the next agent."""

    def __init__(
        self,
        pods: Pods,
        orders: Orders,
        settings: WarmSettings,
        *,
        fall_back: FallBack,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings = settings
        self.port = 0
        self._cluster = pods
        self._orders = orders
        self._fall_back = fall_back
        self._clock = clock
        self.door = Door(token_of=self._token_of, heard=self._heard, lost=self._line_lost)
        self._news = News[Record](lambda record: self._records.get(record.key) is record)
        self._aside = Aside(broken=self._news.broke)
        self._making = Making(pods, self, settings, aside=self._aside, clock=clock)
        self._talk = Talk(self, orders, settings, news=self._news, aside=self._aside, clock=clock)
        self.pools: dict[PoolKey, Pool] = {}
        self._pods: dict[str, WarmPod] = {}
        self._records: dict[AttemptKey, Record] = {}
        self._wake = asyncio.Event()
        self._adoption = Adoption(clock=clock)
        self._pump_due = False

    # -- life -------------------------------------------------------------------------------------

    async def open(self) -> None:
        """OSError when the door's port can't be had."""
        self.port = await self.door.open(self.settings.host, self.settings.port)
        self._aside.keep(self._cluster.run(self, port=self.port), "warm pods")
        self._aside.keep(self._tick_forever(), "ticks of warm pods")

    async def close(self, *, kill: bool) -> None:
        await self._aside.end()
        await self.door.close()
        if kill:
            made = [pod for pod in self._pods.values() if pod.uid]
            await asyncio.gather(*(self._cluster.delete(pod.name, pod.uid) for pod in made))

    # -- the seam ---------------------------------------------------------------------------------

    def takes(self, attempt: Attempt) -> bool:
        return self._making.takes(attempt, self.pools.get(PoolKey.of(attempt)))

    def knows(self, key: AttemptKey) -> bool:
        return key in self._records

    async def start(self, attempts: Sequence[Attempt]) -> None:
        for attempt in attempts:
            if attempt.key not in self._records:
                pool = self._pool(PoolKey.of(attempt))
                record = Record(attempt.key, attempt.input_digest, pool, attempt)
                record.folder = self._orders.sender(attempt.key).folder
                self._records[attempt.key] = record
                if attempt.checkpoint is None and not reads_files(attempt.inputs):
                    pool.add(record)
                else:
                    self._aside.do(self._prepare(record, attempt), f"URLs for {attempt.key.node}")
        self._wake.set()
        self.pump_soon()

    async def watch(self) -> AsyncIterator[Sequence[AttemptEvent]]:
        """`Found` also names attempts that have ended meanwhile: their end follows."""
        yield [await self._adoption.found()]
        while True:
            told = await self._news.batch()
            ended = [record for event, record in told if isinstance(event, Finished | Broke)]
            for record in ended:
                self._records.pop(record.key, None)
            yield [event for event, _ in told]
            for record in ended:  # whoever asks for the next batch has this one
                self._settle(record)

    async def cancel(self, keys: Sequence[AttemptKey]) -> None:
        for key in keys:
            record = self._records.pop(key, None)
            if record is None:
                continue
            record.cancelled = True
            if record.ended:
                self._settle(record)
            elif record.pod is None:
                record.pool.remove(record)
            elif record.pod.line is not None:
                record.pod.line.send([{"t": "cancel", "seq": record.seq}])
        self.pump_soon()

    async def read_log(
        self, key: AttemptKey, stream: str, *, offset: int, limit: int
    ) -> tuple[bytes, bool]:
        """A pod has one stream: stderr is in stdout."""
        record = self._records.get(key)
        if record is None or stream != "stdout":
            return b"", True
        if record.ended or not record.began:
            return b"", False
        return await self._talk.read(record, offset=offset, limit=limit), False

    def counts(self) -> tuple[int, int]:
        """Attempts that run, and that wait."""
        running = sum(record.began > 0 and not record.ended for record in self._records.values())
        return running, len(self._records) - running

    def requested(self) -> Iterable[Resources]:
        """What the pods ask for, busy or not."""
        return [pod.pool.key.requests for pod in self._pods.values()]

    # -- pods, as the cluster tells ---------------------------------------------------------------

    def listed(self) -> None:
        self._adoption.listed()
        self._adoption.look(self._pods.values())

    def seen(self, sighted: Sighted) -> None:
        pod = self._pods.get(sighted.name)
        if pod is None:
            if sighted.over and not sighted.deleting:
                self._making.delete(sighted.name, sighted.uid)
            if sighted.over or sighted.deleting:
                return
            pod = WarmPod(sighted.name, self._pool(sighted.pool), sighted.token, self._clock())
            self.met(pod)
        pod.uid, pod.host = sighted.uid, sighted.host
        pod.leaving |= sighted.deleting
        if sighted.over:
            self.gone(sighted.name, sighted.failure)
            self._making.delete(sighted.name, sighted.uid)

    def met(self, pod: WarmPod) -> None:
        self._pods[pod.name] = pod.pool.pods[pod.name] = pod

    def gone(self, name: str, failure: Failure | None) -> None:
        """Its process is no more: what it had begun is broken, the rest goes back to its row."""
        pod = self._pods.pop(name, None)
        if pod is None:
            return
        pod.pool.pods.pop(name, None)
        if pod.line is not None:
            pod.line.hang_up()
        for record in reversed(list(pod.assigned.values())):
            if record.cancelled:
                continue
            if record.began or record.attempt is None:
                lost = Failure(Owner.SYSTEM, "pod_lost", f"its warm pod {name} is gone")
                self._broke(record, failure or lost)
            else:
                self.again(record)
        pod.assigned.clear()
        if not pod.ready and not pod.leaving:
            self._making.unready(pod, failure)
        self._adoption.look(self._pods.values())
        self.pump_soon()

    # -- what lines tell (see `talk.py`) -----------------------------------------------------

    def _token_of(self, pool: str, name: str) -> str | None:
        pod = self._pods.get(name)
        return pod.token if pod is not None and pod.pool.key.id == pool else None

    def _heard(self, line: Line, message: Message) -> None:
        pod = self._pods.get(line.pod)
        if pod is None:
            line.hang_up()
            return
        if message["t"] == "warm":
            if pod.line is not None and pod.line is not line:
                pod.line.hang_up()
            pod.line = line
            self._greet(pod, message)
            self._adoption.look(self._pods.values())
        elif pod.line is line:
            self._talk.heard(pod, message)
        self.pump_soon()

    def _line_lost(self, line: Line) -> None:
        pod = self._pods.get(line.pod)
        if pod is not None and pod.line is line:
            pod.line, pod.since = None, self._clock()

    def _greet(self, pod: WarmPod, message: Message) -> None:
        """What it runs and keeps against what it was given."""
        running = message["running"]
        told = [Told.of(fields) for fields in (*message["kept"], *([running] if running else []))]
        strangers = self._talk.greet(pod, message, told)
        for one in strangers:
            known = one.key in self._records
            record = None if known else self._adoption.take(pod, one)
            if record is None:
                self._talk.refuse(pod, one)
            else:
                self._records[one.key] = record
        if pod.ready:
            self._talk.welcome(pod, None)
        else:
            self._aside.do(self._talk.bring_code(pod, pod.line), f"code for {pod.name}")

    def ready(self, pod: WarmPod) -> None:
        pod.ready, pod.idle_since, pod.pool.strikes = True, self._clock(), 0

    def again(self, record: Record) -> None:
        """It was handed out and never begun."""
        if record.cancelled:
            return
        if record.attempt is None:  # of an earlier agent, which had its inputs
            self._broke(record, Failure(Owner.SYSTEM, "pod_lost", "its warm pod dropped it"))
            return
        record.pod, record.began, record.announced = None, 0.0, False
        record.pool.add(record, first=True)

    def _broke(self, record: Record, failure: Failure, unreadable: tuple[str, ...] = ()) -> None:
        now, host = time.time_ns(), "" if record.pod is None else record.pod.host
        named, began = replace(failure, node=record.key.node), record.began_ns or now
        record.ended = True
        broke = Broke(record.key, named, began, now, unreadable=unreadable, host=host)
        self._news.tell(broke, record)

    def _settle(self, record: Record) -> None:
        """The engine has its end: so may the pod forget it."""
        pod = record.pod
        if pod is not None and pod.owed.pop(record.seq, None) is not None:
            pod.acks.append(record.seq)
            self.pump_soon()

    # -- giving up --------------------------------------------------------------------------------

    def give_up(self, pod: WarmPod, failure: Failure | None) -> None:
        """It will never be of use."""
        self._making.delete(pod.name, pod.uid)
        self.gone(pod.name, failure)

    def given_back(self, records: list[Record]) -> None:
        self._aside.do(self._give_back(records), "give attempts to pods of their own")

    async def _give_back(self, records: list[Record]) -> None:
        attempts: list[Attempt] = []
        for record in records:
            if not record.cancelled and record.attempt is not None:
                del self._records[record.key]
                attempts.append(record.attempt)
        await self._fall_back(attempts)

    # -- what time brings -------------------------------------------------------------------------

    async def _tick_forever(self) -> None:
        while True:
            if any(pod.assigned for pod in self._pods.values()):
                await asyncio.sleep(TICK_SECONDS)
            else:
                self._wake.clear()
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), IDLE_TICK_SECONDS)
            self.tick()

    def tick(self) -> None:
        now = self._clock()
        for pod in list(self._pods.values()):
            self._look(pod, now)
        self._adoption.look(self._pods.values())
        for pool in self.pools.values():
            self._making.thin(pool)
        self.pump_soon()

    def _look(self, pod: WarmPod, now: float) -> None:
        head = pod.head
        patience = self.settings.lost_seconds if pod.ready else START_SECONDS
        if pod.line is None and now - pod.since > patience:
            kind = "pod_lost" if pod.ready else "unready"
            where = f"at {self.settings.address}:{self.port}"
            said = f"warm pod {pod.name} is not heard: can it reach the agent's door {where}?"
            if not pod.ready:
                self._making.give_up(pod.pool, said)
            self.give_up(pod, Failure(Owner.SYSTEM, kind, said))
        elif head is not None and head.began and now - head.began > TICK_SECONDS:
            if not head.announced and not head.ended:
                head.announced = True
                self._news.tell(Started(head.key, head.began_ns, pod.host), head)
            if len(pod.assigned) > 1:
                head.pool.lane(head.entry).learn(now - head.began)
                self._talk.ask_back(pod)

    # -- handing out ------------------------------------------------------------------------------

    def pump_soon(self) -> None:
        if not self._pump_due:
            self._pump_due = True
            asyncio.get_running_loop().call_soon(self._pump)

    def _pump(self) -> None:
        self._pump_due = False
        for pool in self.pools.values():
            if pool.waiting:
                self._hand_out(pool)
                self._making.fill(pool)
        self._talk.acknowledge(self._pods.values())

    async def _prepare(self, record: Record, attempt: Attempt) -> None:
        try:
            await self._talk.sign(record, attempt)
        except UnreadableInput as error:
            failure = Failure(Owner.SYSTEM, "unreadable_input", str(error))
            self._broke(record, failure, (error.uri,))
            return
        if not record.cancelled:
            record.pool.add(record)
            self.pump_soon()

    def _hand_out(self, pool: Pool) -> None:
        frames: dict[str, list[Message]] = {}
        for pod, record in pool.deal():
            assert record.attempt is not None
            frames.setdefault(pod.name, []).append(frame_of(record, record.attempt))
        for name, messages in frames.items():
            if (line := self._pods[name].line) is not None:
                line.send(messages)
        self._wake.set()

    def _pool(self, key: PoolKey) -> Pool:
        if (pool := self.pools.get(key)) is None:
            pool = self.pools[key] = Pool(key)
        return pool
