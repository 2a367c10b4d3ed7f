"""What running pods have to say before their end: a checkpoint is saved, more slots are needed.

Run by `launcher.py` as a task of its own; reads notices that pods wrote to the region's store,
tells `saved` and has `orders.py` write pages and answers to exclusive attempts. At least once: a
notice is deleted after it was acted upon. A notice is believed only for the pod that its key names
(nobody else got a URL for it).
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import unquote

from whimbrel.runtime_frames import Message
from whimbrel.runtime_store import StoreFull, UnreadableInput, address, artifact_of
from whimbrel.spec import Artifact

from data_plane_agent.blobs import Blobs, Entry
from data_plane_agent.launcher import AttemptKey
from data_plane_agent.pods.answers import is_artifact, is_number, parsed
from data_plane_agent.pods.orders import Orders, Sender

log = logging.getLogger(__name__)

INTERVAL_SECONDS = 1.0
"""Between two looks. Shorter asks the store for more lists, longer makes checkpoints known later
and tasks wait longer for slots."""
URGENT_SECONDS = 0.3
"""The same while exclusive attempts run, and the most at a store that does not answer: theirs must
be heard well within a third of a session's TTL."""
LONGEST_SECONDS = 15.0
"""Between two looks at a store that does not answer."""
AT_ONCE = 8
"""Pods heard. Fewer let the last of many wait, more press the store."""
NONCE_LIMIT = 64
STALE_SECONDS = 600.0
"""After which a notice of an unknown pod is deleted. Shorter might hit one whose pod is about to be
adopted, longer lists it again and again."""
NOTICE_LIMIT = 16 * 1024

SavedListener = Callable[[AttemptKey, Artifact, int], None]


class Mailbox:
    """`known()` are the pods that may speak, by name; nobody known = the store is not asked.
    `left_ns(pod)` is how long an exclusive attempt may run from now on; `urgent()`: one runs."""

    def __init__(
        self,
        blobs: Blobs,
        orders: Orders,
        *,
        cluster: str,
        known: Callable[[], Mapping[str, Sender]],
        saved: SavedListener,
        left_ns: Callable[[str], int] = lambda _pod: 0,
        urgent: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._blobs = blobs
        self._orders = orders
        self._box = f"mailbox/{cluster}/"
        self._known = known
        self._saved = saved
        self._left_ns = left_ns
        self._urgent = urgent
        self._clock = clock
        self._sleep = sleep
        self._newest: dict[str, int] = {}
        self._gate = asyncio.Semaphore(AT_ONCE)

    async def run(self) -> None:
        """Until it is cancelled."""
        pause = INTERVAL_SECONDS
        while True:
            await self._sleep(URGENT_SECONDS if self._urgent() else pause)
            if not self._known():
                self._newest.clear()
                continue
            try:
                await self._look("")
                pause = INTERVAL_SECONDS
            except (UnreadableInput, StoreFull) as error:
                pause = min(pause * 2, LONGEST_SECONDS)
                log.warning("the pods' mailbox can't be read, next look in %g s: %s", pause, error)

    async def look(self, pod: str) -> None:
        """Everything that this pod has said, now: before its end is told, when its answer does not
        tell its last checkpoint. UnreadableInput when the store is away."""
        await self._look(f"{pod}/")

    def heard(self, pod: str, message: Message) -> None:
        """The last checkpoint, from the pod's own answer: then `look` is not needed."""
        sender = self._known().get(pod)
        match message.get("saved"):
            case {"artifact": fields, "at": int(at)} if sender is not None:
                self._tell(pod, sender, fields, at)
            case _:
                pass

    async def _look(self, where: str) -> None:
        known = self._known()
        for pod in [pod for pod in self._newest if pod not in known]:
            del self._newest[pod]
        trouble: UnreadableInput | StoreFull | None = None
        async for page in self._blobs.entries(self._box + where):
            by_pod: dict[str, list[Entry]] = {}
            for entry in page:
                by_pod.setdefault(self._sender_of(entry), []).append(entry)
            acts = [self._hear(pod, known.get(pod), said) for pod, said in by_pod.items()]
            heard = await asyncio.gather(*acts)
            trouble = next((error for _, error in heard if error is not None), trouble)
            if done := [uri for uris, _ in heard for uri in uris]:
                await self._blobs.delete(done)
        if trouble is not None:
            raise trouble

    async def _hear(
        self, pod: str, sender: Sender | None, said: list[Entry]
    ) -> tuple[list[str], UnreadableInput | StoreFull | None]:
        """What was acted upon, and what one could not be: it must not keep the others waiting."""
        done: list[str] = []
        trouble: UnreadableInput | StoreFull | None = None
        async with self._gate:
            for entry in said:
                try:
                    if await self._act(pod, sender, entry):
                        done.append(entry.uri)
                except (UnreadableInput, StoreFull) as error:
                    trouble = error
        return done, trouble

    def _sender_of(self, entry: Entry) -> str:
        inside = entry.uri.removeprefix(address(self._blobs.root, self._box))
        return unquote(inside.split("/", 1)[0])

    async def _act(self, pod: str, sender: Sender | None, entry: Entry) -> bool:
        """Whether it is done with; else it stays there."""
        if sender is None:
            return self._clock() - entry.modified_seconds > STALE_SECONDS
        try:
            data = await self._blobs.get(entry.uri) if entry.bytes <= NOTICE_LIMIT else b""
            match parsed(data):
                case {"t": "renew", "nonce": str(nonce)} if len(nonce) <= NONCE_LIMIT:
                    if left_ns := self._left_ns(pod):
                        await self._orders.renew(sender, nonce=nonce, left_ns=left_ns)
                case {"t": "saved", "artifact": fields, "at": int(at)}:
                    self._tell(pod, sender, fields, at)
                case {"t": "more", "n": int(number)}:
                    await self._orders.next_page(sender, pod=pod, number=number)
                case _:
                    log.warning("pod %s left a notice that nobody understands", pod)
        except UnreadableInput as error:
            if not isinstance(error.__cause__, FileNotFoundError):
                raise
            # Gone: `look` and `run` met, or somebody cleared the attempt's folder.
        return True

    def _tell(self, pod: str, sender: Sender, fields: Any, at: int) -> None:
        """Lists are in no order: an older checkpoint must not follow a newer one."""
        if not (is_artifact(fields) and is_number(at)):
            log.warning("pod %s left a checkpoint's notice that can't be used", pod)
            return
        artifact = artifact_of(fields)
        if not self._orders.owned(artifact, sender):
            log.warning("pod %s named a checkpoint that is not its own: %s", pod, artifact.uri)
        elif at > self._newest.get(pod, 0):
            self._newest[pod] = at
            self._saved(sender.key, artifact, at)
