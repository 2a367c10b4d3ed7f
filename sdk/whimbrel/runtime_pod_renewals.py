"""Until when an exclusive attempt in a pod may run: asked of the agent through the region's store.

Used by process 1 (`runtime_pod.py`): before it forks for the first answer, then on a thread for as
long as the child lives, which keeps the deadline by a kernel timer of its own
(`runtime_exclusive.py`). The agent answers in `data_plane_agent/pods/renewals.py`.

Two machines share no clock: an answer says how much is left, and it counts from before the
question. However long either took, the deadline is not later than the agent's own.
"""

import json
import mmap
import secrets
import struct
import threading
import time
import zlib
from collections.abc import Callable
from contextlib import suppress

from whimbrel.runtime_order import Pages
from whimbrel.runtime_pod_http import Http
from whimbrel.runtime_timer import boottime_ns

FIRST_SECONDS = 10.0
"""For the first live answer. Shorter refuses starts for a store that is slow for a moment, longer
keeps a pod that nobody answers."""
ASK_SECONDS = 1.0
"""Until a question without an answer is asked anew. Shorter fills the mailbox, longer loses more of
a deadline to one that was lost."""
_POLL_SECONDS = 0.1
_SILENCE_SECONDS = 2.0
_REMEMBERED = 8
_CLOCKS_AGREE = 0.99
"""Of what is left: two machines' clocks need not run equally fast."""

_BODY, _CHECK = struct.Struct("<Q"), struct.Struct("<I")


class Deadline:
    """On CLOCK_BOOTTIME, in memory that process 1 writes and the child reads."""

    def __init__(self) -> None:
        self._map = mmap.mmap(-1, mmap.PAGESIZE)

    def push(self, until_ns: int) -> None:
        body = _BODY.pack(until_ns)
        self._map[:12] = body + _CHECK.pack(zlib.crc32(body))

    def newest(self) -> int:
        """0 when there is none yet, or it is being written at this moment."""
        text = self._map[:12]
        whole = _CHECK.unpack_from(text, 8)[0] == zlib.crc32(text[:8])
        return _BODY.unpack_from(text)[0] if whole else 0


class Renewals:
    def __init__(
        self,
        pages: Pages,
        deadline: Deadline,
        *,
        http: Http | None = None,
        now_ns: Callable[[], int] = boottime_ns,
        sleep: Callable[[float], None] = time.sleep,
        nonce: Callable[[], str] = lambda: secrets.token_hex(16),
    ) -> None:
        self._pages = pages
        self._deadline = deadline
        self._http = http or Http(patience=0.0, timeout=_SILENCE_SECONDS)
        self._now_ns = now_ns
        self._sleep = sleep
        self._nonce = nonce
        self._until_ns = 0
        self._asked: dict[str, int] = {}
        self._count = 0

    def first(self) -> bool:
        """Whether anything may start."""
        give_up = self._now_ns() + int(FIRST_SECONDS * 1e9)
        while not self.ask():
            if self._now_ns() >= give_up:
                return False
            self._sleep(_POLL_SECONDS)
        return True

    def begin(self) -> None:
        threading.Thread(target=self._forever, name="whimbrel renewals", daemon=True).start()

    def _forever(self) -> None:
        while True:
            self._sleep(max(_POLL_SECONDS, (self._until_ns - self._now_ns()) / 3e9))
            self.ask()

    def ask(self) -> bool:
        """Whether an answer came that is live and newer than all before it."""
        slots = self._pages.page.renewals
        if not slots:
            return False
        self._count += 1
        slot, nonce, asked_ns = slots[self._count % len(slots)], self._nonce(), self._now_ns()
        self._asked[nonce] = asked_ns
        while len(self._asked) > _REMEMBERED:
            del self._asked[next(iter(self._asked))]
        question = {"t": "renew", "nonce": nonce, "n": self._count}
        with suppress(OSError):
            self._http.put(slot.put, json.dumps(question).encode())
            while self._now_ns() < asked_ns + int(ASK_SECONDS * 1e9):
                if self._look(slot.get):
                    return True
                self._sleep(_POLL_SECONDS)
        return False

    def _look(self, url: str) -> bool:
        """An answer to an earlier question is good too: it counts from that one."""
        nonce, left_ns = "", 0
        with suppress(OSError, ValueError, KeyError, TypeError):  # none yet, or not a word of ours
            answer = json.loads(self._http.get(url))
            nonce, left_ns = str(answer["nonce"]), int(answer["left_ns"])
        asked_ns = self._asked.pop(nonce, None)
        if asked_ns is None:
            return False
        until_ns = asked_ns + int(left_ns * _CLOCKS_AGREE)
        if until_ns <= max(self._until_ns, self._now_ns()):
            return False
        self._until_ns = until_ns
        self._deadline.push(until_ns)
        return True
