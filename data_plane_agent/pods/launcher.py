"""The pod launcher: attempts in, events out, with one Kubernetes cluster in between.

Called by the engine through `data_plane_agent/launcher.py`; `making.py` makes pods, a reflector
tells what becomes of them, `failures.py` judges. Its memory is a cache of the cluster: after a
restart it lists the pods by label and goes on.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path

from whimbrel.spec import Artifact, Failure, Owner

from data_plane_agent.aside import Aside
from data_plane_agent.blobs import Blobs
from data_plane_agent.launcher import (
    Attempt,
    AttemptEvent,
    AttemptKey,
    Broke,
    Capacity,
    Finished,
    Found,
    Renewal,
    Saved,
    Started,
)
from data_plane_agent.news import News
from data_plane_agent.pods import access, capacity, failures
from data_plane_agent.pods.api import ApiError, Object, PodApi
from data_plane_agent.pods.clock import REAL, Clock
from data_plane_agent.pods.cluster import Cluster
from data_plane_agent.pods.codec import MOST_AVOIDED, pod_name, selector
from data_plane_agent.pods.death import Death
from data_plane_agent.pods.ends import Ends
from data_plane_agent.pods.held import Held, held_of
from data_plane_agent.pods.logs import PodLogs
from data_plane_agent.pods.mailbox import Mailbox
from data_plane_agent.pods.making import Maker, NotMade
from data_plane_agent.pods.orders import Orders, Sender
from data_plane_agent.pods.reflector import Change, Gone, Listed, Reflector, Seen
from data_plane_agent.pods.removal import Removal
from data_plane_agent.pods.renewals import PodRenewals
from data_plane_agent.pods.settings import PodSettings
from data_plane_agent.pods.sight import Sight, sight

log = logging.getLogger(__name__)

TICK_SECONDS = 0.5
"""Between two looks at what waits: limits are kept to about this."""


class PodLauncher:
    """Implements `Launcher`. `open` before anything else; `close(kill=False)` leaves the pods to
    the next agent. Without a `renewal` nothing exclusive starts."""

    def __init__(
        self,
        api: PodApi,
        orders: Orders,
        blobs: Blobs,
        settings: PodSettings,
        *,
        data_dir: Path,
        renewal: Renewal | None = None,
        clock: Clock = REAL,
    ) -> None:
        self.blobs = blobs
        self.settings = settings
        self._api = api
        self._orders = orders
        self._clock = clock
        self._held: dict[str, Held] = {}
        self._making: dict[str, asyncio.Task[None]] = {}
        self._removal = Removal(api, data_dir / "removed-pods", clock=clock)
        self._renewals = PodRenewals(renewal, clock_ns=clock.boottime_ns)
        self._death = Death(api, self._renewals, self._removal, self._making, clock=clock)
        self._maker = Maker(api, orders, settings, doomed=self._removal, clock=clock)
        self._logs = PodLogs(api, data_dir / "logs", clock=clock)
        cluster, now, sleep = settings.cluster, clock.now, clock.sleep
        self._mailbox = Mailbox(
            blobs, orders, cluster=cluster, known=self._senders, saved=self._saved, sleep=sleep,
            left_ns=lambda name: self._renewals.left_ns(self._held.get(name)),
            urgent=lambda: any(one.exclusive and one.renewable for one in self._held.values()),
        )  # fmt: skip
        self._ends = Ends(orders, self._mailbox, self._logs, clock=clock)
        self._pods = Reflector(
            api, "pods", on_change=self._changed, selector=selector(cluster), clock=now, sleep=sleep
        )
        self._cluster = Cluster(api, gpu_resource=settings.gpu_resource, clock=clock)
        self._found: dict[AttemptKey, str] | None = None
        self._found_known = asyncio.Event()
        self._leaving: dict[AttemptKey, Held] = {}  # told of, and not yet `taken`
        self._news = News[Held](lambda held: self._held.get(held.name) is held)
        self._swept_at = clock.now()
        self._aside = Aside(broken=self._broken)

    # -- life -------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Raises Refused when the cluster or the store can't serve at all; an API server that does
        not answer now is waited for."""
        await self._orders.open()
        try:
            await access.check(self._api)
        except ApiError as error:
            log.warning("the API server does not answer yet: %s", error.message)
            self._aside.keep(self._cluster.check_rights(), "rights")
        for work, name in (
            (self._pods.run(), "pods"),
            (self._cluster.reflector.run(), "nodes"),
            (self._cluster.pulse_forever(), "pulse of the API server"),
            (self._mailbox.run(), "mailbox"),
            (self._tick_forever(), "pod launcher ticks"),
        ):
            self._aside.keep(work, name)

    async def close(self, *, kill: bool) -> None:
        await self._aside.end()
        await self._logs.end()
        if kill:
            await self._removal.stop_all(self._held.values())
        await self._api.close()

    # -- the seam ---------------------------------------------------------------------------------

    async def start(self, attempts: Sequence[Attempt]) -> None:
        for attempt in attempts:
            name = pod_name(attempt.key)
            if name not in self._held:
                held = Held(attempt.key, name, attempt.input_digest, self._clock.now(), attempt)
                held.avoid = attempt.avoid[:MOST_AVOIDED]
                held.exclusive = held.renewable = attempt.exclusive
                self._held[name] = held
                before = self._making.get(name)
                self._making[name] = self._aside.do(self._make(held, before), f"make {name}")

    async def watch(self) -> AsyncIterator[Sequence[AttemptEvent]]:
        """`Found` also names attempts that have ended meanwhile: their end follows. Raises what
        broke a loop of the launcher: the agent is to be started anew."""
        await self._found_known.wait()
        yield [Found(self._found or {})]
        while True:
            told = await self._news.batch()
            for event, held in told:
                if isinstance(event, Finished | Broke):
                    self._leaving[held.key] = self._held.pop(held.name)
                    self._death.expect(held)
            yield [event for event, _ in told]

    def taken(self, keys: Sequence[AttemptKey]) -> None:
        for held in [self._leaving.pop(key) for key in keys if key in self._leaving]:
            if held.uid:
                self._put_away(held.name, held.uid)

    async def quiesce(self, keys: Sequence[AttemptKey]) -> None:
        for key in keys:
            held = self._held.get(pod_name(key))
            if held is not None and not held.quiesced:
                held.quiesced = True
                self._ask_to_leave(held)

    async def adopt(self, keys: Sequence[AttemptKey]) -> None:
        for key in keys:
            if held := self._held.get(pod_name(key)):
                held.renewable = held.exclusive

    async def kill(self, keys: Sequence[AttemptKey]) -> None:
        await self.cancel(keys)
        await self._death.of(keys)

    async def cancel(self, keys: Sequence[AttemptKey]) -> None:
        self.taken(keys)
        for key in keys:
            if (held := self._held.pop(pod_name(key), None)) is None:
                continue
            held.cancelled = True
            self._death.expect(held)
            self._logs.close(held.name)
            if held.uid:
                self._removal.note(held.uid)
                self._aside.do(self._removal.stop(held.name, held.uid), f"delete {held.name}")

    def capacity(self) -> Capacity:
        known = self._found_known.is_set()
        return self._cluster.capacity(self._held.values(), self.settings, known=known)

    async def read_log(
        self, key: AttemptKey, stream: str, *, offset: int, limit: int
    ) -> tuple[bytes, bool]:
        """A pod has one stream: its stderr is in its stdout, as `kubectl logs` shows it."""
        held = self._held.get(pod_name(key))
        if held is None or stream != "stdout":
            return b"", True
        if held.sight is None or not held.sight.started_ns:
            return b"", False
        return await self._logs.read(held.name, offset=offset, limit=limit), False

    # -- making -----------------------------------------------------------------------------------

    async def _make(self, held: Held, before: "asyncio.Task[None] | None") -> None:
        """`before`: the same attempt was started before, and cancelled: its pod is to be gone."""
        try:
            if before is not None:
                await asyncio.wait([before])
            made = await self._maker.make(held)
        except NotMade as error:
            now, uris = self._clock.now_ns(), error.unreadable
            broke = Broke(held.key, error.failure, now, now, unreadable=uris)
            return self._news.tell(broke, held)
        finally:
            if self._making.get(held.name) is asyncio.current_task():
                del self._making[held.name]
        if made is None:
            return None
        held.uid = made.uid
        if held.cancelled:
            return await self._removal.stop(held.name, held.uid)
        if held.attempt is not None:
            held.attempt = replace(held.attempt, inputs={})  # the order has them
        if held.quiesced:
            self._ask_to_leave(held)
        held.made_at = self._clock.now()
        if held.sight is None:  # the watch may have been faster
            self._see(held, made)

    # -- what the cluster tells -------------------------------------------------------------------

    def _changed(self, change: Change) -> None:
        match change:
            case Listed():
                self._removal.listed([pod["metadata"]["uid"] for pod in self._pods.items.values()])
                if self._found is None:
                    self._take_over()
            case Seen(pod):
                if (held := self._of(pod)) is not None:
                    held.shown = True
            case Gone(pod):
                self._removal.gone(pod["metadata"]["uid"])
                if (held := self._of(pod)) is not None:
                    held.gone = True
                    self._begin_end(held)
                self._death.gone(pod["metadata"]["uid"])

    def _of(self, pod: Object) -> Held | None:
        """Whose pod this is, with its new state taken in."""
        seen = sight(pod)
        if seen is not None:
            self._death.tell(seen)
        held = None if seen is None or self._found is None else self._held.get(seen.name)
        if seen is None or held is None or not held.is_of(seen):
            return None
        if held.requests is None:
            held.requests = capacity.requests_of(pod, gpu_resource=self.settings.gpu_resource)
        self._see(held, seen)
        return held

    def _take_over(self) -> None:
        """The first complete list: what an earlier agent left. What it has told of, or cancelled,
        is only put away."""
        found: dict[AttemptKey, str] = {}
        for pod in self._pods.items.values():
            seen = sight(pod)
            if seen is None:
                continue
            held = held_of(seen, self._clock.now())
            if seen.uid in self._removal:
                self._death.expect(held)
                self._put_away(seen.name, seen.uid)
                continue
            found[seen.key] = seen.input_digest
            self._held[seen.name] = held
            held.requests = capacity.requests_of(pod, gpu_resource=self.settings.gpu_resource)
        self._found = found
        self._found_known.set()
        for held in list(self._held.values()):
            if held.sight is not None:
                self._see(held, held.sight)

    def _see(self, held: Held, seen: Sight) -> None:
        held.see(seen, self._clock.now())
        if seen.started_ns and not held.told_started:
            held.told_started = True
            avoided = tuple(host for host in held.avoid if host != seen.host)
            self._news.tell(Started(held.key, seen.started_ns, seen.host, avoided), held)
        if seen.over:
            self._begin_end(held)

    # -- ends -------------------------------------------------------------------------------------

    def _begin_end(self, held: Held, failure: Failure | None = None) -> None:
        """Not while an exclusive one may run on where nobody sees it: it gets no further answer,
        and `_look` comes back."""
        if self._renewals.may_run(held):
            held.renewable = False
        elif not held.ending:
            held.ending = True
            self._aside.do(self._end(held, failure), f"end {held.name}")

    async def _end(self, held: Held, failure: Failure | None) -> None:
        try:
            end = await self._ends.of(held, failure)
        except Exception as error:
            log.exception("the end of %s can't be told well: a bug", held.name)
            now = self._clock.now_ns()
            failure = Failure(Owner.SYSTEM, "pod_lost", f"its end can't be understood: {error!r}")
            end = Broke(held.key, failure, now, now)
        if isinstance(end, Broke) and end.failure.kind == "image" and held.sight is not None:
            self._cluster.refuse(held.sight.image)
        self._logs.close(held.name)
        self._news.tell(end, held)

    def _ask_to_leave(self, held: Held) -> None:
        """SIGTERM and its manifest's grace; what has not begun is deleted."""
        if held.uid:
            self._aside.do(self._removal.ask(held.name, held.uid), f"quiesce {held.name}")

    def _put_away(self, name: str, uid: str) -> None:
        self._removal.note(uid)
        after = self.settings.linger_seconds
        self._aside.do(self._removal.remove(name, uid, after=after), f"put away {name}")

    # -- what time brings -------------------------------------------------------------------------

    async def _tick_forever(self) -> None:
        while True:
            await self._clock.sleep(TICK_SECONDS)
            self.tick()

    def tick(self) -> None:
        now = self._clock.now()
        self._cluster.look(self._pods.ill)
        self._renewals.look([*self._held.values(), *self._death.look()])
        if self._found is None:
            return
        for held in list(self._held.values()):
            self._look(held, now)
        self._logs.end_idle()
        if now - self._swept_at >= self.settings.orphan_seconds and self._cluster.well:
            self._swept_at = now
            self._sweep()

    def _look(self, held: Held, now: float) -> None:
        well, patience = self._cluster.well, self.settings.unschedulable_seconds
        if (news := held.placing(now, well=well, patience=patience)) is not None:
            self._news.tell(news, held)
        if not well:
            return held.begin_patience(now)
        if held.sight is None or held.ending:
            return
        if held.gone or held.sight.over:
            return self._begin_end(held)
        if held.unshown(now):
            self._aside.do(self._ask_for(held), f"ask for {held.name}")
        about = held.circumstances(now, silent=self._cluster.silent(held.sight.host))
        failure = failures.given_up(held.sight, about, self.settings)
        if failure is not None:
            self._begin_end(held, failure)

    async def _ask_for(self, held: Held) -> None:
        """It may have come and gone while no watch was there to see it."""
        try:
            found = await self._api.get(held.name)
        except ApiError:
            return
        there = None if found is None else sight(found)
        if there is None or there.uid != held.uid:
            held.gone = True
            self._begin_end(held)
        elif not held.shown:
            self._see(held, there)

    def _sweep(self) -> None:
        """No pod with our label may stay that nobody owns (I7). A young one may be of a create
        whose answer is on its way."""
        oldest_ns = self._clock.now_ns() - int(self.settings.orphan_seconds * 1e9)
        owners = [*self._held.values(), *self._leaving.values()]
        seen = [one for one in map(sight, self._pods.items.values()) if one is not None]
        for one in self._removal.strays(seen, owners, oldest_ns=oldest_ns):
            log.warning("pod %s belongs to nobody: deleted", one.name)
            self._aside.do(self._removal.remove(one.name, one.uid), f"delete {one.name}")

    # -- news -------------------------------------------------------------------------------------

    def _senders(self) -> dict[str, Sender]:
        return {
            name: Sender(held.key, held.folder) for name, held in self._held.items() if held.folder
        }

    def _saved(self, key: AttemptKey, artifact: Artifact, at_ns: int) -> None:
        if (held := self._held.get(pod_name(key))) is not None:
            self._news.tell(Saved(key, artifact, at_ns), held)

    def _broken(self, error: BaseException) -> None:
        self._found_known.set()
        self._news.broke(error)
