"""Process 1 of a warm pod: takes tasks from its agent's door and gives them to a child, one by one.

Started as `python -P -m whimbrel.runtime_warm` with WHIMBREL_WARM and WHIMBREL_WARM_TOKEN in a pod
that `data_plane_agent/warm/pools.py` made. It fetches the code once, keeps time limits, gives back
what it can't begin, and keeps each answer until the agent has it. One thread, so that it may fork.
"""

import base64
import os
import select
import shutil
import signal
import sys
import tempfile
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from mmap import PAGESIZE, mmap
from pathlib import Path

from whimbrel.runtime_frames import Message
from whimbrel.runtime_pod import Flag
from whimbrel.runtime_pod_child import Desk
from whimbrel.runtime_pod_watch import End, how_lost, oom_kills
from whimbrel.runtime_warm_child import Room
from whimbrel.runtime_warm_code import Unfit, fetch_code, put_log
from whimbrel.runtime_warm_door import Door, Seat
from whimbrel.runtime_warm_watch import Child
from whimbrel.spec import Failure, Owner

_TICK_SECONDS = 1.0
_TEXT_LIMIT = 1 << 20


@dataclass(slots=True)
class Task:
    """What the child has in hands, or had: `answer` is there while its output is being stored."""

    frame: Message
    started_ns: int
    limit: float | None
    ooms: int
    page: Message | None = None
    answer: Message | None = None
    saved: Message | None = None
    ended_ns: int = 0


class Warm:
    def __init__(self, seat: Seat, desk: Desk, moving: Flag) -> None:
        self._seat, self._desk, self._moving = seat, desk, moving
        self._door = Door(seat)
        self._room: Room | None = None
        self._grace = 0.0
        self._queue: deque[Message] = deque()
        self._task: Task | None = None
        self._unacked: dict[int, Message] = {}
        self._last_seq = 0
        self._said: list[Message] = []
        self._child: Child | None = None
        self._leaving = False
        self._leave_by = self._gone_by = float("inf")
        self._wake, wake_end = os.pipe()
        os.set_blocking(self._wake, False)
        os.set_blocking(wake_end, False)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        signal.set_wakeup_fd(wake_end)

    def run(self) -> int:
        while not self._over():
            if self._door.connection is None and self._door.dial(self._about()):
                self._said.clear()  # of an earlier connection: the agent has asked anew
            self._wait()
            self._limits()
            self._begin()
            self._flush()
        self._flush()
        return 0

    def _over(self) -> bool:
        if self._task is not None:
            return False
        now = time.monotonic()
        if self._leaving:
            return not self._unacked or now >= self._gone_by
        away = self._door.away_since
        return away is not None and now - away > self._seat.orphan_seconds

    def _about(self) -> Message:
        running = None
        if task := self._task:
            meta = task.frame["meta"]
            running = {"seq": task.frame["seq"], "s": task.started_ns, **meta}
        kept = [{"seq": seq, "k": one["k"], "d": one["d"]} for seq, one in self._unacked.items()]
        return {
            "ready": self._room is not None,
            "leaving": self._leaving,
            "running": running,
            "kept": kept,
            "last": self._last_seq,
        }

    # -- waiting ----------------------------------------------------------------------------------

    def _wait(self) -> None:
        door = self._door.connection
        channel = self._child and self._child.channel
        sources = [self._wake, *(one for one in (door, channel) if one is not None)]
        ready, _, _ = select.select(sources, [], [], self._patience())
        if self._wake in ready:
            with suppress(BlockingIOError):
                os.read(self._wake, 4096)
            self._leave()
        if channel is not None and channel in ready:
            self._hear_child()
        if self._wake in ready:
            self._reap()
        if door is not None and door in ready:
            for message in self._door.receive():
                self._hear(message)
            if self._door.connection is None:
                self._queue.clear()  # not begun: the agent gives them to somebody

    def _patience(self) -> float:
        now = time.monotonic()
        times = [_TICK_SECONDS]
        if self._door.connection is None:
            times.append(self._door.wait)
        if self._task is not None and self._task.answer is None:
            times.append(self._leave_by - now)
            if self._task.limit is not None:
                times.append(self._task.limit - now)
        return max(0.0, min(times))

    def _say(self, *messages: Message) -> None:
        self._said += messages

    def _flush(self) -> None:
        """Everything of one turn in one write."""
        said, self._said = self._said, []
        self._door.send(said)

    # -- the agent --------------------------------------------------------------------------------

    def _hear(self, message: Message) -> None:
        match message:
            case {"t": "task", "seq": int(seq)}:
                self._last_seq = max(self._last_seq, seq)
                self._queue.append(message)
                if self._leaving:
                    self._give_back([seq])
            case {"ack": seqs}:
                for seq in seqs:
                    self._unacked.pop(seq, None)
            case {"t": "back", "seqs": seqs}:
                self._give_back(seqs)
            case {"t": "cancel", "seq": int(seq)}:
                self._cancel(seq)
            case {"t": "page", "seq": int(seq), "page": page}:
                self._paged(seq, page)
            case {"t": "read", "id": asked, "seq": int(seq), "offset": int(at), "limit": int(most)}:
                self._read(asked, seq, at, most)
            case {"t": "welcome"}:
                self._welcomed(message)
            case _:
                pass

    def _welcomed(self, message: Message) -> None:
        self._door.welcomed()
        self._grace = message["grace"]
        if self._room is None:
            try:
                fetch_code(message["code"], self._desk)
            except Unfit as error:
                self._say({"t": "unfit", "owner": error.owner, "message": str(error)})
                self._leaving, self._gone_by = True, 0.0
                return
            self._room = Room(self._desk, self._seat.empty, message["region"])
            self._child = Child(self._room, moving=self._moving)
            self._child.fork()
            self._say({"t": "ready"})
        self._say(*self._unacked.values())
        task = self._task
        if task is not None and task.saved is not None:
            self._say(task.saved)
        if task is not None and (task.answer is not None or task.frame.get("asked")):
            self._ask(task)

    def _give_back(self, seqs: list[int]) -> None:
        given = [frame["seq"] for frame in self._queue if frame["seq"] in seqs]
        self._queue = deque(frame for frame in self._queue if frame["seq"] not in seqs)
        if given:
            self._say({"t": "given", "seqs": given})

    def _cancel(self, seq: int) -> None:
        self._unacked.pop(seq, None)
        self._give_back([seq])
        if self._task is not None and self._task.frame["seq"] == seq:
            if self._task.answer is None:
                self._renew()
            self._task = None
            self._say({"t": "given", "seqs": [seq]})

    def _paged(self, seq: int, page: Message) -> None:
        task = self._task
        if task is None or task.frame["seq"] != seq:
            return
        task.page = page
        task.frame.pop("asked", None)
        if task.answer is not None:
            self._store_output(task)
        elif self._child is not None:
            self._child.tell({"page": page})

    def _read(self, asked: object, seq: int, offset: int, limit: int) -> None:
        data = b""
        if self._task is not None and self._task.frame["seq"] == seq:
            with suppress(OSError), self._desk.log.open("rb") as file:
                file.seek(offset)
                data = file.read(min(limit, _TEXT_LIMIT))
        self._say({"t": "text", "id": asked, "data": base64.b64encode(data).decode()})

    # -- the child --------------------------------------------------------------------------------

    def _begin(self) -> None:
        if self._leaving or self._task is not None or not self._queue or self._child is None:
            return
        frame = self._queue.popleft()
        timeout = frame["meta"]["timeout"]
        limit = time.monotonic() + timeout if timeout else None
        self._task = Task(frame, time.time_ns(), limit, oom_kills())
        self._say({"t": "begin", "seq": frame["seq"], "at": self._task.started_ns})
        self._flush()  # before it begins: what dies with this pod must not pass for untouched
        self._child.tell(frame)

    def _hear_child(self) -> None:
        assert self._child is not None
        for message in self._child.hear():
            task = self._task
            match message:
                case _ if task is None:
                    pass
                case {"t": "more", "n": number}:
                    task.frame["asked"] = number
                    self._ask(task)
                case {"t": "saved"}:
                    about = {"seq": task.frame["seq"], "at": time.time_ns()}
                    task.saved = {**message, **about}
                    self._say(task.saved)
                case _:
                    if message.get("kind") != "import":
                        self._child.proved(task.frame["entry"].partition(":")[0])
                    self._ended(task, message)

    def _ask(self, task: Task) -> None:
        number = task.frame.get("asked", 1)
        self._say({"t": "more", "seq": task.frame["seq"], "n": number})

    def _ended(self, task: Task, answer: Message) -> None:
        task.answer, task.ended_ns = answer, time.time_ns()
        if not self._output_bytes():
            self._answer(task, None)
        elif task.page is not None:
            self._store_output(task)
        else:
            self._ask(task)

    def _output_bytes(self) -> int:
        with suppress(OSError):
            return self._desk.log.stat().st_size
        return 0

    def _store_output(self, task: Task) -> None:
        assert task.page is not None
        region = self._room.region if self._room is not None else ""
        self._answer(task, put_log(task.page["log"], self._desk.log, region=region))

    def _answer(self, task: Task, stdout: Message | None) -> None:
        assert task.answer is not None
        meta, seq = task.frame["meta"], task.frame["seq"]
        answer = {
            **task.answer,
            "seq": seq,
            "k": meta["k"],
            "d": meta["d"],
            "s": task.started_ns,
            "e": task.ended_ns,
            "stdout": stdout,
            "stderr": None,
            "saved": task.saved,
        }
        self._unacked[seq] = answer
        self._say(answer)
        self._task = None

    def _reap(self) -> None:
        status = None if self._child is None else self._child.ended()
        if status is None:
            return
        self._hear_child()  # an answer may lie there still
        task = self._task
        if task is not None and task.answer is None:
            oom = oom_kills() > task.ooms
            self._broke(task, _too_much_memory() if oom else how_lost(End(status, None, oom)))
        self._renew()

    def _renew(self) -> None:
        """Another child, in place of this one and all that it started."""
        assert self._child is not None
        self._child.kill()
        if not self._leaving:
            self._child.fork()

    def _broke(self, task: Task, failure: Failure) -> None:
        told: Message = {
            "t": "broke",
            "owner": failure.owner,
            "kind": failure.kind,
            "message": failure.message,
            "tb": "",
            "unreadable": [],
        }
        self._ended(task, told)

    # -- limits -----------------------------------------------------------------------------------

    def _limits(self) -> None:
        task, now = self._task, time.monotonic()
        if task is None or task.answer is not None:
            if task is not None and now >= self._gone_by:  # nobody signs a slot for its output
                self._answer(task, None)
            return
        if task.limit is not None and now >= task.limit:
            said = f"did not end within its timeout of {task.frame['meta']['timeout']:g} s"
            failure = Failure(Owner.USER, "timeout", said)
        elif now >= self._leave_by:
            said = f"asked to move; neither ended nor saved a checkpoint in its {self._grace:g} s"
            failure = Failure(Owner.SYSTEM, "interrupted", said)
        else:
            return
        self._renew()
        self._broke(task, failure)

    def _leave(self) -> None:
        """SIGTERM: what runs may end or save a checkpoint, the rest goes back."""
        if not self._moving() or self._leaving:
            return
        self._leaving = True
        now, grace = time.monotonic(), self._grace
        self._leave_by = now + max(grace - 5.0, grace / 2)
        self._gone_by = now + grace - min(1.0, grace / 5)
        self._say({"t": "leaving"})
        self._give_back([frame["seq"] for frame in self._queue])


def _too_much_memory() -> Failure:
    said = "the kernel ended it: it used more memory than the pod has (see its limits)"
    return Failure(Owner.USER, "oom", said)


def main() -> int:
    moving = Flag(mmap(-1, PAGESIZE))
    signal.signal(signal.SIGTERM, lambda _number, _frame: moving.set())
    try:
        seat = Seat.take()
    except ValueError as error:
        print(f"whimbrel: {error}", file=sys.stderr)  # noqa: T201
        return 2
    desk = Desk(Path(tempfile.mkdtemp(prefix="whimbrel-", dir=Path.cwd())))
    try:
        return Warm(seat, desk, moving).run()
    finally:
        shutil.rmtree(desk.folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
