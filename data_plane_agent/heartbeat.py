"""Heartbeats and the watchdog, on threads and a channel of their own, so that no work delays them.

Begun by the session at each Welcome; tells the guard what the router confirmed and what the clock
says; tells the session when the router says that the session is over.
"""

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from time import monotonic
from typing import Protocol

from whimbrel.errors import WhimbrelError

from data_plane_agent import messages as m
from data_plane_agent.fence import Acked, SessionOver, Tick
from data_plane_agent.guard import Guard

log = logging.getLogger(__name__)


JOIN_SECONDS = 5.0
"""For the last connection to close. Longer holds up the agent's stop for a router that hangs."""


class PulsePort(Protocol):
    def send(self, beat: m.Beat) -> None: ...
    def acks(self) -> Iterator[m.BeatAck]: ...
    def close(self) -> None: ...


Vitals = Callable[[], tuple[m.Load, int, bool, str]]
"""Load, engine progress, whether work is pending, digest of what is held; called on the
heartbeat's thread."""


class Heartbeat:
    def __init__(
        self,
        *,
        cluster: str,
        addresses: Sequence[str],
        connect: Callable[[str], PulsePort],
        guard: Guard,
        vitals: Vitals,
        on_over: Callable[[], None],
    ) -> None:
        """`on_over` is called on a thread of the heartbeat's."""
        self._cluster = cluster
        self._addresses = list(addresses)
        self._connect = connect
        self._guard = guard
        self._vitals = vitals
        self._on_over = on_over
        self._beats: _Beats | None = None
        self._lock = threading.Lock()
        self.n = 0
        self.last_ack_n = 0

    def begin(self, welcome: m.Welcome, *, address: str) -> None:
        """Beat for this session, first over `address`; what beat before ends."""
        self.end()
        at = self._addresses.index(address) if address in self._addresses else 0
        beats = _Beats(self, welcome, at)
        with self._lock:
            self._beats = beats
        beats.start()

    def end(self) -> None:
        """Nothing that is heard from now on counts. Its threads end by themselves."""
        with self._lock:
            beats, self._beats = self._beats, None
        if beats is not None:
            beats.stop()

    def close(self) -> None:
        """Also waits until its last connection is closed."""
        beats = self._beats
        self.end()
        if beats is not None:
            beats.join()

    def next(self, welcome: m.Welcome) -> m.Beat:
        load, progress, pending, digest = self._vitals()
        with self._lock:
            self.n += 1
            n = self.n
        return m.Beat(
            session=welcome.session,
            cluster=self._cluster,
            cluster_epoch=welcome.cluster_epoch,
            n=n,
            last_ack_n=self.last_ack_n,
            sent_ns=self._guard.now(),
            compute_ok=not load.capacity.ill,
            engine_progress=progress,
            work_pending=pending,
            load=load,
            held_digest=digest,
        )

    def heard(self, ack: m.BeatAck, *, of: "_Beats") -> None:
        with self._lock:
            if of is not self._beats:
                return  # a word about an earlier session must not end this one
            self.last_ack_n = max(self.last_ack_n, ack.n)
            if ack.session_over:
                self._guard.hear(SessionOver())
                self._on_over()
            elif ack.renewed:
                self._guard.hear(Acked(ack.sent_ns))

    def late(self, nanoseconds: int) -> None:
        self._guard.hear(Tick(nanoseconds))

    def connect(self, at: int) -> PulsePort:
        return self._connect(self._addresses[at % len(self._addresses)])


class _Beats:
    """One session's sender; each connection has a reader of its own."""

    def __init__(self, heart: Heartbeat, welcome: m.Welcome, at: int) -> None:
        self._heart = heart
        self._welcome = welcome
        self._at = at
        self._stopped = threading.Event()
        self._broken = threading.Event()
        self._pulse: PulsePort | None = None
        self._thread = threading.Thread(target=self._send, name="heartbeat", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()

    def join(self) -> None:
        self._thread.join(timeout=JOIN_SECONDS)

    def _send(self) -> None:
        interval = self._welcome.heartbeat_seconds
        pulse = self._open()
        planned = monotonic()
        try:
            while not self._stopped.is_set():
                if self._broken.is_set():
                    pulse.close()
                    self._at += 1
                    pulse = self._open()
                pulse.send(self._heart.next(self._welcome))
                planned = max(planned + interval, monotonic())
                # Several looks at the clock between two beats: the deadline is noticed in time.
                while (rest := planned - monotonic()) > 0 and not self._stopped.is_set():
                    step = min(rest, interval / 4)
                    before = monotonic()
                    self._stopped.wait(step)
                    self._heart.late(max(0, int((monotonic() - before - step) * 1e9)))
        except Exception:
            # Without heartbeats the session ends by itself; a silent end would look like a cut.
            log.exception("the heartbeat ended: a bug")
        finally:
            pulse.close()

    def _open(self) -> PulsePort:
        self._broken.clear()
        pulse = self._heart.connect(self._at)
        threading.Thread(
            target=self._read, args=(pulse,), name="heartbeat answers", daemon=True
        ).start()
        self._pulse = pulse
        return pulse

    def _read(self, pulse: PulsePort) -> None:
        try:
            for ack in pulse.acks():
                if self._stopped.is_set():
                    return
                self._heart.heard(ack, of=self)
        except WhimbrelError as error:
            if not self._stopped.is_set():
                log.info("heartbeats to another router: %s", error)
        if pulse is self._pulse:
            self._broken.set()
