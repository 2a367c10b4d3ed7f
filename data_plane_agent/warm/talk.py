"""What is said between the agent and one warm pod, and what follows from it.

Owned by `pools.py`, which keeps pods and attempts; the messages are made in
`whimbrel.runtime_warm`. User code shares that pod: nothing of an answer is believed but its
contents.
"""

import asyncio
import base64
import logging
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Protocol

from whimbrel.runtime_frames import Message
from whimbrel.runtime_store import UnreadableInput, artifact_of
from whimbrel.spec import Failure, Owner

from data_plane_agent.aside import Aside
from data_plane_agent.attempt_answers import end_of, key_of, parts_of
from data_plane_agent.launcher import Attempt, AttemptEvent, AttemptKey, Broke, Saved
from data_plane_agent.news import News
from data_plane_agent.pods.answers import complete, is_artifact
from data_plane_agent.pods.orders import Orders, Sender
from data_plane_agent.warm.door import Line
from data_plane_agent.warm.pool import Record, WarmPod
from data_plane_agent.warm.settings import WarmSettings

log = logging.getLogger(__name__)

READ_SECONDS = 2.0
"""For a part of a running task's output. Longer keeps who asks waiting for a pod that is away."""


@dataclass(frozen=True, slots=True)
class Told:
    """An attempt that a pod says it runs, or whose answer it keeps."""

    seq: int
    key: AttemptKey
    input_digest: str
    folder: str
    began_ns: int
    runs: bool

    @classmethod
    def of(cls, fields: Message) -> "Told":
        began = int(fields.get("s", 0))
        key, folder = key_of(fields["k"]), str(fields.get("f", ""))
        return cls(int(fields["seq"]), key, str(fields["d"]), folder, began, "s" in fields)


class Ears(Protocol):
    def ready(self, pod: WarmPod) -> None: ...
    def again(self, record: Record) -> None: ...
    def give_up(self, pod: WarmPod, failure: Failure | None) -> None: ...


class Talk:
    def __init__(
        self,
        ears: Ears,
        orders: Orders,
        settings: WarmSettings,
        *,
        news: News[Record],
        aside: Aside,
        clock: Callable[[], float],
    ) -> None:
        self._ears = ears
        self._orders = orders
        self._settings = settings
        self._news = news
        self._aside = aside
        self._clock = clock
        self._asked = 0
        self._reads: dict[int, asyncio.Future[bytes]] = {}

    # -- greeting ---------------------------------------------------------------------------------

    def greet(self, pod: WarmPod, message: Message, told: list[Told]) -> list[Told]:
        """What it dropped goes back to its row; what it tells that nobody here gave it is the
        answer."""
        pod.ready = bool(message["ready"])
        pod.leaving |= bool(message["leaving"])
        pod.last_seq = max(pod.last_seq, int(message["last"]))
        pod.asked_back, pod.idle_since = 0, self._clock()
        seqs = {one.seq for one in told}
        for seq, record in reversed(list(pod.assigned.items())):
            if seq not in seqs:
                del pod.assigned[seq]
                self._ears.again(record)
        return [one for one in told if one.seq not in pod.assigned and one.seq not in pod.owed]

    async def bring_code(self, pod: WarmPod, line: Line | None) -> None:
        try:
            code = await self._orders.code(pod.pool.key.bundle)
        except Exception as error:  # any: pods of single tasks find out, and tell, what is wrong
            log.warning("no code for the warm pod %s: %s", pod.name, error)
            self._ears.give_up(pod, None)
            return
        if pod.line is line:
            self.welcome(pod, code)

    def welcome(self, pod: WarmPod, code: Message | None) -> None:
        about: Message = {
            "t": "welcome",
            "region": self._settings.region,
            "grace": self._settings.grace_seconds,
        }
        cancelled = [seq for seq, record in pod.assigned.items() if record.cancelled]
        self._send(
            pod,
            about if code is None else {**about, "code": code},
            *({"t": "cancel", "seq": seq} for seq in cancelled),
        )

    def refuse(self, pod: WarmPod, one: Told) -> None:
        """Nobody waits for it any more."""
        if one.runs:
            self._send(pod, {"t": "cancel", "seq": one.seq})
        else:
            pod.acks.append(one.seq)

    # -- work -------------------------------------------------------------------------------------

    def heard(self, pod: WarmPod, message: Message) -> None:
        match message:
            case {"t": "begin", "seq": int(seq), "at": int(at)}:
                if record := pod.assigned.get(seq):
                    record.began, record.began_ns = self._clock(), at
            case {"t": "done" | "broke", "seq": int(seq)}:
                self._answered(pod, seq, message)
            case {"t": "given", "seqs": list()}:
                self._given(pod, message["seqs"])
            case {"t": "saved", "seq": int(seq)}:
                if record := pod.assigned.get(seq):
                    self._saved(record, message)
            case {"t": "more", "seq": int(seq), "n": int(number)}:
                if record := pod.assigned.get(seq):
                    self._aside.do(self._more(pod, record, number), f"slots for {pod.name}")
            case {"t": "text", "id": int(asked), "data": str(data)}:
                future = self._reads.pop(asked, None)
                if future is not None and not future.done():
                    future.set_result(base64.b64decode(data))
            case {"t": "ready"}:
                self._ears.ready(pod)
            case {"t": "leaving"}:
                pod.leaving = True
            case {"t": "unfit", "owner": str(owner), "message": str(said)}:
                self._ears.give_up(pod, Failure(Owner(owner), "unready", said))
            case _:
                log.warning("warm pod %s said what nobody understands", pod.name)

    def ask_back(self, pod: WarmPod) -> None:
        """All that waits behind a task that turns out to be long."""
        newest = max(pod.assigned)
        if newest > pod.asked_back:
            pod.asked_back = newest
            self._send(pod, {"t": "back", "seqs": list(pod.assigned)[1:]})

    def acknowledge(self, pods: Iterable[WarmPod]) -> None:
        for pod in pods:
            if pod.acks and pod.line is not None:
                acks, pod.acks = pod.acks, []
                self._send(pod, {"ack": acks})

    async def read(self, record: Record, *, offset: int, limit: int) -> bytes:
        if record.pod is None or record.pod.line is None:
            return b""
        self._asked += 1
        asked, future = self._asked, asyncio.get_running_loop().create_future()
        self._reads[asked] = future
        where = {"seq": record.seq, "offset": offset, "limit": limit}
        self._send(record.pod, {"t": "read", "id": asked, **where})
        try:
            with suppress(TimeoutError):
                return await asyncio.wait_for(future, READ_SECONDS)
            return b""
        finally:
            self._reads.pop(asked, None)

    def _answered(self, pod: WarmPod, seq: int, message: Message) -> None:
        record = pod.assigned.pop(seq, None)
        pod.idle_since = self._clock()
        if not pod.assigned:
            pod.asked_back = 0
        if record is None or record.cancelled:
            if seq not in pod.owed:
                pod.acks.append(seq)
            return
        if not complete(message):
            self._end(pod, record, _unclear(record))
            return
        if record.attempt is not None:
            record.pool.lane(record.entry).learn((message["e"] - message["s"]) / 1e9)
        if message.get("saved"):
            self._saved(record, message["saved"])
        event = end_of({**message, "k": parts_of(record.key), "d": record.input_digest})
        self._end(pod, record, replace(event, host=pod.host))

    def _end(self, pod: WarmPod, record: Record, event: AttemptEvent) -> None:
        record.ended = True
        pod.owed[record.seq] = record
        self._news.tell(event, record)

    def _given(self, pod: WarmPod, seqs: list[Any]) -> None:
        pod.asked_back = 0
        for seq in sorted(seqs, reverse=True):
            if record := pod.assigned.pop(seq, None):
                self._ears.again(record)
        pod.idle_since = self._clock()

    def _saved(self, record: Record, message: Message) -> None:
        """The answer tells the last one again: the line may have been down."""
        fields, at = message.get("artifact"), message.get("at")
        if not is_artifact(fields) or not isinstance(at, int) or at <= record.saved_ns:
            return
        artifact = artifact_of(fields or {})
        if not self._orders.owned(artifact, Sender(record.key, record.folder)):
            log.warning("a task named a checkpoint that is not its own: %s", artifact.uri)
            return
        record.saved_ns = at
        self._news.tell(Saved(record.key, artifact, at), record)

    async def sign(self, record: Record, attempt: Attempt) -> None:
        """URLs of what it reads. UnreadableInput when there is one that can't be signed."""
        until = time.time_ns() + int(self._orders.url_seconds * 0.8e9)
        record.reads, record.reads_until_ns = await self._orders.reads(attempt), until

    async def _more(self, pod: WarmPod, record: Record, number: int) -> None:
        """Slots, and fresh URLs of what it reads. Who gets none asks again, or gives up in time."""
        sender = Sender(record.key, record.folder)
        with suppress(UnreadableInput):
            page = await self._orders.page(sender, pod=pod.name, number=number)
            if page is not None and record.attempt is not None:
                page["reads"] = await self._orders.reads(record.attempt)
            if page is not None and record.pod is pod:
                self._send(pod, {"t": "page", "seq": record.seq, "page": page})

    def _send(self, pod: WarmPod, *messages: Message) -> None:
        if pod.line is not None:
            pod.line.send(list(messages))


def _unclear(record: Record) -> Broke:
    now = time.time_ns()
    said = "its answer can't be understood: does its image hold this version of whimbrel?"
    failure = Failure(Owner.SYSTEM, "worker_lost", said, node=record.key.node)
    return Broke(record.key, failure, record.began_ns or now, now)
