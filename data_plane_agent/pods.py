"""The pod launcher: attempts in, events out, with one Kubernetes cluster in between.

Called by the engine through `launcher.py`; `pod_making.py` makes pods, a reflector tells what
becomes of them, `pod_failures.py` judges. Its memory is a cache of the cluster: after a restart it
lists the pods by label and goes on.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from whimbrel.runtime_frames import Message
from whimbrel.runtime_store import UnreadableInput
from whimbrel.spec import Artifact, Failure

from data_plane_agent import pod_access, pod_capacity, pod_failures
from data_plane_agent.blobs import Blobs
from data_plane_agent.launcher import (
    Attempt,
    AttemptEvent,
    AttemptKey,
    Broke,
    Capacity,
    Finished,
    Found,
    Logs,
    Offer,
    Saved,
    Started,
    Unplaceable,
)
from data_plane_agent.mailbox import Mailbox
from data_plane_agent.pod_api import ApiError, PodApi
from data_plane_agent.pod_capacity import NodeSight
from data_plane_agent.pod_codec import image_of, pod_name, selector
from data_plane_agent.pod_failures import Circumstances
from data_plane_agent.pod_held import Held, held_of
from data_plane_agent.pod_logs import PodLogs
from data_plane_agent.pod_making import Maker, NotMade
from data_plane_agent.pod_orders import Orders, Sender
from data_plane_agent.pod_settings import PodSettings
from data_plane_agent.pod_sight import Sight, sight
from data_plane_agent.process_answers import end_of
from data_plane_agent.reflector import Change, Gone, Listed, Reflector, Seen

log = logging.getLogger(__name__)

TICK_SECONDS = 0.5
"""Between two looks at what waits: limits are kept to about this."""
PULSE_SECONDS = 2.0
"""Between two questions whether the API server is well. Shorter asks for nothing, longer sends runs
to a cluster that can't start them."""
ANSWER_SECONDS = 60.0
"""For an answer in a store that is away. Shorter computes again what was done, longer holds up a
retry."""
RESCUE_SECONDS = 10.0
"""For the log of a pod that did not store it itself."""
ILL_SECONDS = 3.0
"""Without an answer of the API server. Shorter turns work away for a hiccup, longer sends it to a
cluster that can't start it."""
REFUSED_IMAGE_SECONDS = 600.0
"""An image that could not be had counts as not there. Shorter fails run after run, longer keeps
them away from a cluster that has it again."""


class PodLauncher:
    """Implements `Launcher`. `open` before anything else; `close(kill=False)` leaves the pods to
    the next agent."""

    def __init__(
        self,
        api: PodApi,
        orders: Orders,
        blobs: Blobs,
        settings: PodSettings,
        *,
        data_dir: Path,
        clock: Callable[[], float] = time.monotonic,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self.blobs = blobs
        self.settings = settings
        self._api = api
        self._orders = orders
        self._clock, self._clock_ns = clock, clock_ns
        self._maker = Maker(api, orders, settings)
        self._logs = PodLogs(api, data_dir / "logs", clock=clock)
        self._mailbox = Mailbox(
            blobs, orders, cluster=settings.cluster, known=self._senders, saved=self._saved
        )
        self._pods = Reflector(
            api, "pods", on_change=self._pod_changed, selector=selector(settings.cluster)
        )
        self._nodes = Reflector(api, "nodes", on_change=self._node_changed)
        self._node_sights: dict[str, NodeSight] = {}
        self._held: dict[str, Held] = {}
        self._found: dict[AttemptKey, str] | None = None
        self._found_known = asyncio.Event()
        self._events: list[tuple[AttemptEvent, Held]] = []
        self._news = asyncio.Event()
        self._refused_images: dict[str, float] = {}
        self._no_pulse = ""
        self._ill_since: float | None = None
        self._swept_at = clock()
        self._tasks: set[asyncio.Task[None]] = set()

    # -- life -------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Raises Refused when the cluster or the store can't serve at all; an API server that does
        not answer now is waited for."""
        await self._orders.open()
        try:
            await pod_access.check(self._api)
        except ApiError as error:
            log.warning("the API server does not answer yet: %s", error.message)
        self._spawn(self._pods.run(), "pods")
        self._spawn(self._nodes.run(), "nodes")
        self._spawn(self._mailbox.run(), "mailbox")
        self._spawn(self._pulse_forever(), "pulse of the API server")
        self._spawn(self._tick_forever(), "pod launcher ticks")

    async def close(self, *, kill: bool) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._logs.end()
        if kill:
            held = [one for one in self._held.values() if one.uid]
            await asyncio.gather(*(self._delete(one.name, one.uid) for one in held))
        await self._api.close()

    # -- the seam ---------------------------------------------------------------------------------

    async def start(self, attempts: Sequence[Attempt]) -> None:
        for attempt in attempts:
            name = pod_name(attempt.key)
            if name not in self._held:
                held = Held(attempt.key, name, attempt.input_digest, self._clock(), attempt)
                held.avoid = attempt.avoid
                self._held[name] = held
                self._spawn(self._make(held), f"make {name}")

    async def watch(self) -> AsyncIterator[Sequence[AttemptEvent]]:
        """`Found` also names attempts that have ended meanwhile: their end follows."""
        await self._found_known.wait()
        yield [Found(self._found or {})]
        while True:
            await self._news.wait()
            self._news.clear()
            told, self._events = self._events, []
            batch: list[AttemptEvent] = []
            ended: list[Held] = []
            for event, held in told:
                if self._held.get(held.name) is not held:
                    continue  # cancelled meanwhile
                batch.append(event)
                if isinstance(event, Finished | Broke):
                    ended.append(held)
                    del self._held[held.name]
            if batch:
                yield batch
            for held in ended:  # whoever asks for the next batch has this one
                self._spawn(self._put_away(held), f"put away {held.name}")

    async def cancel(self, keys: Sequence[AttemptKey]) -> None:
        for key in keys:
            held = self._held.pop(pod_name(key), None)
            if held is None:
                continue
            held.cancelled = True
            self._logs.close(held.name)
            if held.uid:
                self._spawn(self._delete(held.name, held.uid), f"delete {held.name}")

    def capacity(self) -> Capacity:
        nodes = list(self._node_sights.values())
        asked: list[Any] = []
        running = queued = 0
        for held in self._held.values():
            pod, seen = self._pods.items.get(held.name), held.sight
            if pod is not None and seen is not None and not seen.over:
                asked.append(pod_capacity.requests_of(pod, gpu_resource=self.settings.gpu_resource))
            running += seen is not None and seen.running
            queued += seen is None or (not seen.running and not seen.over)
        return Capacity(
            allocatable=pod_capacity.largest(nodes),
            free=pod_capacity.free(nodes, asked),
            running=running,
            queued=queued,
            ill=self._ill(),
            offer=self._offer(),
        )

    async def read_log(
        self, key: AttemptKey, stream: str, *, offset: int, limit: int
    ) -> tuple[bytes, bool]:
        """A pod has one stream: its stderr is in its stdout, as `kubectl logs` shows it."""
        held = self._held.get(pod_name(key))
        if held is None or stream != "stdout":
            return b"", True
        if held.sight is None or not held.sight.host:
            return b"", False
        return await self._logs.read(held.name, offset=offset, limit=limit), False

    # -- making -----------------------------------------------------------------------------------

    async def _make(self, held: Held) -> None:
        try:
            made = await self._maker.make(held)
        except NotMade as error:
            now = self._clock_ns()
            self._end(held, Broke(held.key, error.failure, now, now, unreadable=error.unreadable))
            return
        if made is None:
            return
        if held.cancelled:
            await self._delete(held.name, made.uid)
            return
        if held.attempt is not None:
            held.attempt = replace(held.attempt, inputs={})  # the order has them
        if held.sight is None:  # the watch may have been faster
            self._see(held, made)

    # -- what the cluster tells -------------------------------------------------------------------

    def _pod_changed(self, change: Change) -> None:
        match change:
            case Listed():
                if self._found is None:
                    self._take_over()
            case Seen(pod):
                seen = sight(pod)
                if seen is not None and self._found is not None:
                    held = self._held.get(seen.name)
                    if held is not None and held.uid in ("", seen.uid):
                        self._see(held, seen)
            case Gone(pod):
                seen = sight(pod)
                held = None if seen is None else self._held.get(seen.name)
                if seen is not None and held is not None and held.uid in ("", seen.uid):
                    self._see(held, seen)
                    self._begin_end(held, Circumstances(gone=True))

    def _take_over(self) -> None:
        """The first complete list: what an earlier agent left."""
        found: dict[AttemptKey, str] = {}
        for pod in self._pods.items.values():
            seen = sight(pod)
            if seen is None or (seen.deleting_ns and not seen.over):
                continue  # the sweep sees to it
            found[seen.key] = seen.input_digest
            self._held[seen.name] = held_of(seen, self._clock())
        self._found = found
        self._found_known.set()
        for held in list(self._held.values()):
            if held.sight is not None:
                self._see(held, held.sight)

    def _node_changed(self, change: Change) -> None:
        match change:
            case Seen(node):
                seen = pod_capacity.node_sight(node, gpu_resource=self.settings.gpu_resource)
                self._node_sights[seen.name] = seen
            case Gone(node):
                self._node_sights.pop(node["metadata"]["name"], None)
            case Listed():
                pass

    def _see(self, held: Held, seen: Sight) -> None:
        held.see(seen, self._clock())
        if seen.over:
            self._begin_end(held, Circumstances())
        elif seen.running and not held.told_started:
            held.told_started = True
            avoided = tuple(host for host in held.avoid if host != seen.host)
            self._tell(Started(held.key, seen.started_ns, seen.host, avoided), held)

    # -- ends -------------------------------------------------------------------------------------

    def _begin_end(self, held: Held, about: Circumstances, failure: Failure | None = None) -> None:
        if not held.ending:
            held.ending = True
            self._spawn(self._finish(held, about, failure), f"end {held.name}")

    async def _finish(self, held: Held, about: Circumstances, failure: Failure | None) -> None:
        """Tells the end once all that belongs to it is known: answer, last checkpoint, log."""
        seen, sender = held.sight, held.sender
        assert seen is not None
        answer = await self._answer(seen, sender) if failure is None and sender else None
        if answer is not None:
            self._mailbox.heard(held.name, answer)
            self._end(held, replace(end_of(answer), host=seen.host))
            return
        if sender is not None:
            with contextlib.suppress(Exception):  # a checkpoint less: no reason to tell no end
                await asyncio.wait_for(self._mailbox.look(held.name), RESCUE_SECONDS)
        if failure is None:
            limit = held.attempt.limits.mem_bytes if held.attempt else 0
            failure = pod_failures.ended(seen, replace(about, memory_limit=limit))
        if failure.kind == "image" and held.attempt is not None:
            self._refused_images[image_of(held.attempt, self.settings)] = self._clock()
        began = seen.started_ns or (seen.ended.started_ns if seen.ended else 0)
        logs = Logs(stdout=await self._rescued(held, sender)) if began else Logs()
        now = self._clock_ns()
        stopped = seen.ended.ended_ns if seen.ended and seen.ended.ended_ns else now
        named = replace(failure, node=held.key.node)
        self._end(held, Broke(held.key, named, began or now, stopped, logs, host=seen.host))

    async def _answer(self, seen: Sight, sender: Sender) -> Message | None:
        text = seen.ended.message if seen.ended else ""
        deadline = self._clock() + ANSWER_SECONDS
        while text:
            try:
                return await self._orders.answer(text, sender)
            except UnreadableInput as error:
                if self._clock() > deadline:
                    log.warning("the answer of %s can't be read: %s", seen.name, error)
                    return None
                await asyncio.sleep(1.0)
        return None

    async def _rescued(self, held: Held, sender: Sender | None) -> Artifact | None:
        if sender is None:
            return None
        try:
            async with asyncio.timeout(RESCUE_SECONDS):
                return await self._orders.save_log(sender, await self._logs.whole(held.name))
        except TimeoutError:
            return None

    def _end(self, held: Held, event: Finished | Broke) -> None:
        held.ending = True
        self._logs.close(held.name)
        self._tell(event, held)

    async def _put_away(self, held: Held) -> None:
        await asyncio.sleep(self.settings.linger_seconds)
        if held.uid:
            await self._delete(held.name, held.uid)

    async def _delete(self, name: str, uid: str) -> None:
        try:
            await self._api.delete(name, uid=uid)
        except ApiError as error:  # the sweep will
            log.info("pod %s can't be deleted now: %s", name, error.message)

    # -- what time brings -------------------------------------------------------------------------

    async def _tick_forever(self) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            self.tick()

    async def _pulse_forever(self) -> None:
        """A frozen API server breaks no watch for minutes: it is asked."""
        while True:
            try:
                await self._api.healthy()
                self._no_pulse = ""
            except ApiError as error:
                self._no_pulse = error.message
            await asyncio.sleep(PULSE_SECONDS)

    @property
    def _sick(self) -> str:
        return self._no_pulse or self._pods.ill or self._nodes.ill

    def tick(self) -> None:
        now = self._clock()
        ill = self._sick
        self._ill_since = None if not ill else (self._ill_since or now)
        if self._found is None:
            return
        for held in list(self._held.values()):
            self._look(held, now)
        self._logs.end_idle()
        if now - self._swept_at >= self.settings.orphan_seconds and not ill:
            self._swept_at = now
            self._sweep()

    def _look(self, held: Held, now: float) -> None:
        patient = now - held.since <= self.settings.unschedulable_seconds
        if held.no_room and not held.told_unplaceable and not patient:
            held.told_unplaceable = True
            self._tell(Unplaceable(held.key, held.no_room), held)
        current = self._ill_since is None and self._nodes.synced.is_set()
        if held.sight is None or held.ending or not current:
            return  # an old picture of a cluster proves nobody's death
        node = self._node_sights.get(held.sight.host)
        silent = bool(held.sight.host) and (node is None or node.silent_since_ns != 0)
        held.silent_since = (held.silent_since or now) if silent else 0.0
        about = Circumstances(
            node_silent_seconds=now - held.silent_since + TICK_SECONDS if silent else 0.0,
            stuck_seconds=now - held.stuck_since if held.stuck_on else 0.0,
        )
        failure = pod_failures.given_up(held.sight, about, self.settings)
        if failure is not None:
            self._begin_end(held, about, failure)

    def _sweep(self) -> None:
        """No pod with our label may stay that nobody owns (I7)."""
        oldest_ns = self._clock_ns() - int(self.settings.orphan_seconds * 1e9)
        lingering_ns = self._clock_ns() - int((self.settings.linger_seconds + 60) * 1e9)
        for pod in self._pods.items.values():
            seen = sight(pod)
            if seen is None or seen.deleting_ns or seen.name in self._held:
                continue
            if seen.created_ns < min(oldest_ns, lingering_ns):
                log.warning("pod %s belongs to nobody: deleted", seen.name)
                self._spawn(self._delete(seen.name, seen.uid), f"delete {seen.name}")

    def _ill(self) -> str:
        if self._found is None or not self._nodes.synced.is_set():
            return self._sick or "the cluster is not known yet"
        if self._ill_since is not None and self._clock() - self._ill_since > ILL_SECONDS:
            return self._sick
        if not any(node.usable for node in self._node_sights.values()):
            return "no node of it is ready"
        return ""

    def _offer(self) -> Offer:
        now = self._clock()
        refused = tuple(
            image for image, at in self._refused_images.items() if now - at < REFUSED_IMAGE_SECONDS
        )
        images = self.settings.images and (*self.settings.images, self.settings.image)
        return Offer(images, refused, tuple(self.settings.secrets))

    # -- news -------------------------------------------------------------------------------------

    def _senders(self) -> dict[str, Sender]:
        return {
            name: Sender(held.key, held.folder) for name, held in self._held.items() if held.folder
        }

    def _saved(self, key: AttemptKey, artifact: Artifact, at_ns: int) -> None:
        held = self._held.get(pod_name(key))
        if held is not None:
            self._tell(Saved(key, artifact, at_ns), held)

    def _tell(self, event: AttemptEvent, held: Held) -> None:
        self._events.append((event, held))
        self._news.set()

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._over)

    def _over(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("%s failed: a bug", task.get_name(), exc_info=error)
