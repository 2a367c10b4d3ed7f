"""Agents' sessions: Hello and resumption, renewal by heartbeats, and who holds which stream.

Called by the gateway's door; asks the control plane for cluster epochs and keeps presence in etcd
under a lease. Any replica may renew any session; a session whose key has gone is over for good.
"""

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from whimbrel.errors import Fenced, InvalidInput, Unreachable
from whimbrel.spec import Assignment

from router import clusters as keys
from router.clusters import Capacity, Session, encode, session_from
from router.etcd import Etcd, EtcdDown, LeaseGone
from router.held import compare
from router.inventory import Assigned, Inventory, News, Reread, SessionChanged, Unassigned
from router.pulse import Beat, Pulse, failing, feel
from router.streams import Stream

log = logging.getLogger(__name__)

CAPACITY_SECONDS = 1.0
"""Between two writes of a cluster's capacity. Shorter fills etcd, longer places on old numbers."""
NO_REASON = "its agent gives no reason"
"""Why the compute is ill, when only the heartbeat says that it is."""
ATTEMPTS = 5
"""To put a session key while others write it too; each one that wins has a higher epoch."""


class Epochs(Protocol):
    """What a session needs of the control plane."""

    async def open_session(self, cluster: str, *, incarnation: str, region: str) -> int: ...


@dataclass(frozen=True, slots=True)
class Terms:
    """`ttl` whole seconds of a lease; `heartbeat` and `stall` seconds; `gateway` where other
    replicas reach this one."""

    ttl: int
    heartbeat: float
    stall: float
    gateway: str


@dataclass(frozen=True, slots=True)
class Hello:
    cluster: str
    incarnation: str
    region: str
    resume_session: str = ""
    capacity: Capacity | None = None


@dataclass(frozen=True, slots=True)
class Welcome:
    session: str
    cluster_epoch: int
    ttl: float
    heartbeat: float
    resumed: bool


@dataclass(frozen=True, slots=True)
class Ack:
    renewed: bool = False
    session_over: bool = False


class Sessions:
    def __init__(
        self,
        etcd: Etcd,
        inventory: Inventory,
        epochs: Epochs,
        *,
        terms: Terms,
        clock: Callable[[], float],
    ) -> None:
        self._etcd = etcd
        self._inventory = inventory
        self._epochs = epochs
        self._terms = terms
        self._clock = clock
        self._streams: dict[str, Stream] = {}
        self._pulses: dict[str, tuple[str, Pulse]] = {}
        self._reported: dict[str, tuple[int, Capacity]] = {}
        self._written: dict[str, tuple[int, Capacity]] = {}
        self._doubts: asyncio.Queue[str] = asyncio.Queue()
        inventory.listen(self._on_news)

    async def hello(self, hello: Hello) -> tuple[Stream, Welcome]:
        """A stream to be drained, and what to tell the agent. Raises what the control plane says
        to an unknown cluster, Unreachable when it or etcd is away, Fenced when a newer session
        won."""
        if not hello.cluster or not hello.incarnation:
            raise InvalidInput("a Hello needs a cluster and an incarnation")
        stream_id = secrets.token_hex(8)
        kept = await self._resume(hello, stream_id) if hello.resume_session else None
        if kept is not None:
            session, ttl = kept
        else:
            session, ttl = await self._open(hello, stream_id)
        if hello.capacity is not None:
            self._reported[session.cluster] = (session.lease, hello.capacity)
            await self._write_capacity(session.cluster)
        stream = self._attach(session)
        welcome = Welcome(
            session.session, session.cluster_epoch, ttl, self._terms.heartbeat, kept is not None
        )
        log.info(
            "session %s",
            "resumed" if kept else "opened",
            extra={"cluster": session.cluster, "cluster_epoch": session.cluster_epoch},
        )
        return stream, welcome

    async def _resume(self, hello: Hello, stream: str) -> tuple[Session, float] | None:
        """The same session on a new stream, or None: its key has gone or is another's."""
        key = keys.SESSIONS + hello.cluster
        for _ in range(ATTEMPTS):
            raw = await self._etcd.get(key)
            stored = None if raw is None else session_from(raw)
            if stored is None or stored.session != hello.resume_session:
                return None
            if stored.incarnation != hello.incarnation:
                return None
            ttl = await self._etcd.keep_alive(stored.lease, timeout=self._terms.heartbeat)
            if ttl <= 0:
                return None
            moved = replace(stored, gateway=self._terms.gateway, stream=stream)
            try:
                swap = await self._etcd.swap(key, encode(moved), expected=raw, lease=stored.lease)
            except LeaseGone:
                return None
            if swap.done:
                return moved, ttl
        raise Unreachable(f"the session of {hello.cluster} is being written by others; try again")

    async def _open(self, hello: Hello, stream: str) -> tuple[Session, float]:
        key = keys.SESSIONS + hello.cluster
        epoch = await self._next_epoch(hello, await self._etcd.get(key))
        lease = await self._etcd.grant(self._terms.ttl)
        session = Session(
            cluster=hello.cluster,
            session=secrets.token_hex(16),
            cluster_epoch=epoch,
            incarnation=hello.incarnation,
            lease=lease.id,
            gateway=self._terms.gateway,
            stream=stream,
        )
        raw = await self._etcd.get(key)
        for _ in range(ATTEMPTS):
            before = None if raw is None else session_from(raw)
            if before is not None and before.cluster_epoch > epoch:
                break
            try:
                swap = await self._etcd.swap(key, encode(session), expected=raw, lease=lease.id)
            except LeaseGone as cause:
                raise Unreachable("etcd lost the lease at once; say Hello again") from cause
            if swap.done or swap.stored == encode(session):
                if before is not None and before.lease != lease.id:
                    await self._end_quietly(before.lease)
                return session, lease.ttl
            raw = swap.stored
        await self._end_quietly(lease.id)
        raise Fenced(f"a newer session of {hello.cluster} is there")

    async def _next_epoch(self, hello: Hello, stored: bytes | None) -> int:
        """Above every session that stood before it was asked for: a control plane that was restored
        from a backup counts again what it has given out."""
        before = 0 if stored is None else session_from(stored).cluster_epoch
        while True:
            epoch = await self._epochs.open_session(
                hello.cluster, incarnation=hello.incarnation, region=hello.region
            )
            if epoch > before:
                return epoch
            log.critical(
                "alarm: the control plane counts session %d, there is session %d: it is older",
                epoch,
                before,
                extra={"cluster": hello.cluster, "cluster_epoch": before},
            )

    async def _end_quietly(self, lease: int) -> None:
        # Not heard: it ends by itself within a TTL, and nothing hangs on it any more.
        with contextlib.suppress(EtcdDown):
            await self._etcd.revoke(lease)

    def _attach(self, session: Session) -> Stream:
        def everything() -> Sequence[Assignment] | None:
            inventory = self._inventory
            return inventory.assigned_to(session.cluster) if inventory.current else None

        stream = Stream(
            session.stream,
            cluster=session.cluster,
            session=session.session,
            everything=everything,
        )
        if (old := self._streams.get(session.cluster)) is not None:
            old.close("" if old.session == session.session else "superseded")
        self._streams[session.cluster] = stream
        # The key may have been taken over before the stream stood here.
        self._doubts.put_nowait(session.cluster)
        return stream

    def detach(self, stream: Stream) -> None:
        """The stream has ended. The session lives on as long as its lease does."""
        stream.close("")
        if self._streams.get(stream.cluster) is stream:
            del self._streams[stream.cluster]

    def close(self) -> None:
        """Tells every agent to go to another replica; no lease is touched."""
        for stream in list(self._streams.values()):
            stream.close("shutting_down")

    def locate(self, cluster: str) -> Stream | str:
        """The stream to an agent, or the address of the replica that holds it."""
        if (stream := self._streams.get(cluster)) is not None and not stream.closed:
            return stream
        self._inventory.require()
        session = self._inventory.sessions.get(cluster)
        if session is None or session.gateway == self._terms.gateway:
            raise Unreachable(f"the agent of {cluster} is not connected")
        return session.gateway

    async def beat(self, beat: Beat, capacity: Capacity | None = None) -> Ack:
        """Renews the session's lease, if it still is one; answers within about a heartbeat."""
        patience = self._terms.heartbeat
        session = self._inventory.sessions.get(beat.cluster)
        if not _same(session, beat):
            try:
                raw = await self._etcd.get(keys.SESSIONS + beat.cluster, timeout=patience)
            except EtcdDown:
                return Ack()
            session = None if raw is None else session_from(raw)
        if session is None or not _same(session, beat):
            return Ack(session_over=True)
        ttl = self._terms.ttl
        of, pulse = self._pulses.get(beat.cluster, ("", None))
        pulse = feel(pulse if of == beat.session else None, beat, now=self._clock(), ttl=ttl)
        self._pulses[beat.cluster] = (beat.session, pulse)
        if why := failing(pulse, ttl=ttl, stall=self._terms.stall):
            log.warning("not renewed: %s", why, extra={"cluster": beat.cluster})
            return Ack()
        try:
            left = await self._etcd.keep_alive(session.lease, timeout=patience)
        except (EtcdDown, LeaseGone):
            return Ack()
        if left <= 0:
            return Ack(session_over=True)
        if (reported := self._said(beat, session.lease, capacity)) is not None:
            self._reported[beat.cluster] = (session.lease, reported)
        self._compare(beat)
        return Ack(renewed=True)

    def _compare(self, beat: Beat) -> None:
        """Of agents whose stream is here: theirs is the replica that told them."""
        stream = self._streams.get(beat.cluster)
        known = self._inventory.current and stream is not None and stream.session == beat.session
        if stream is None or not known or not beat.held:
            return
        same = beat.held == self._inventory.held(beat.cluster)
        stream.difference, again = compare(stream.difference, same=same, now=self._clock())
        if again:
            log.info("holds other runs than are assigned to it", extra={"cluster": beat.cluster})
            stream.refresh()

    def _said(self, beat: Beat, lease: int, capacity: Capacity | None) -> Capacity | None:
        """The newest capacity of this session, as ill as the heartbeat says it is."""
        if capacity is None:
            of, capacity = self._reported.get(beat.cluster, (0, None))
            if capacity is None or of != lease:
                return None
        if beat.compute_ok:
            return replace(capacity, ill="") if capacity.ill else capacity
        return capacity if capacity.ill else replace(capacity, ill=NO_REASON)

    async def write_capacities(self) -> None:
        """For ever: what changed since it was written last."""
        while True:
            await asyncio.sleep(CAPACITY_SECONDS)
            for cluster in list(self._reported):
                try:
                    await self._write_capacity(cluster)
                except EtcdDown:
                    break  # all of it again in the next round

    async def _write_capacity(self, cluster: str) -> None:
        report = self._reported[cluster]
        if self._written.get(cluster) == report:
            return
        lease, capacity = report
        try:
            await self._etcd.put(keys.CAPACITY + cluster, encode(capacity), lease=lease)
        except LeaseGone:
            self._reported.pop(cluster, None)  # of a session that is over
            return
        self._written[cluster] = report

    async def settle_doubts(self) -> None:
        """For ever: reads the key of every stream that may not count any more, and ends those
        that don't. The watch only hints; it may be behind a key that was just written."""
        while True:
            cluster = await self._doubts.get()
            # Before the read: a stream that stands here by now has written its key.
            stream = self._streams.get(cluster)
            if stream is None:
                continue
            try:
                raw = await self._etcd.get(keys.SESSIONS + cluster)
            except EtcdDown:
                await asyncio.sleep(self._terms.heartbeat)
                self._doubts.put_nowait(cluster)
                continue
            session = None if raw is None else session_from(raw)
            if session is None:
                stream.close("session_over")
            elif session.stream != stream.id:
                stream.close("" if session.session == stream.session else "superseded")

    def _on_news(self, news: News) -> None:
        match news:
            case Assigned(assignment):
                if (stream := self._streams.get(assignment.cluster)) is not None:
                    stream.changed(assignment)
            case Unassigned(assignment):
                if (stream := self._streams.get(assignment.cluster)) is not None:
                    stream.removed(assignment)
            case SessionChanged(cluster):
                stream = self._streams.get(cluster)
                session = self._inventory.sessions.get(cluster)
                if stream is not None and (session is None or session.stream != stream.id):
                    self._doubts.put_nowait(cluster)
                if session is None:
                    self._reported.pop(cluster, None)
                    self._written.pop(cluster, None)
            case Reread():
                self._written.clear()
                for cluster, stream in self._streams.items():
                    stream.refresh()
                    self._doubts.put_nowait(cluster)


def _same(session: Session | None, beat: Beat) -> bool:
    return (
        session is not None
        and session.session == beat.session
        and session.cluster_epoch == beat.cluster_epoch
    )
