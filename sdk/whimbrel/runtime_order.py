"""A pod's order, and the region's store through the URLs that it brings: slots to write, addresses
to read.

Read by `runtime_pod.py`; the store is given to `runtime_task.py` in place of `AttemptStore`. The
agent writes orders and further pages in `data_plane_agent/pods/orders.py`.
"""

import hashlib
import json
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from whimbrel.errors import TooLarge
from whimbrel.runtime_frames import Message
from whimbrel.runtime_pod_http import DiskError, Http, Refusal
from whimbrel.runtime_store import StoreFull, UnreadableInput, name_of, plain
from whimbrel.spec import Artifact

T = TypeVar("T")

VERSION, EXCLUSIVE_VERSION = 1, 2
"""The latter of an exclusive attempt: who knows of no renewals must not run it."""
OBJECT_LIMIT = 5 << 30
"""Bytes of one upload; S3 takes no more in one request."""
PAGE_SECONDS = 900.0
"""To wait for an agent that restarts to sign more URLs; shorter breaks tasks, longer keeps a pod of
an agent that is gone."""
ABROAD_SECONDS, ABROAD_SILENCE_SECONDS = 5.0, 10.0
"""Patience with another region's store: it may be gone with its region, and what lay there is then
computed again. Shorter computes again what a slow line delays, longer holds up a failover."""
_ASK_AGAIN_SECONDS = 30.0
_POLL_SECONDS = 0.5
_USED_UP = 0.8
_DEAD = 403
"""How S3 answers to a URL that has ended."""


@dataclass(frozen=True, slots=True)
class Slot:
    """One object that may be written once: its address, and signed URLs for it."""

    uri: str
    put: str
    get: str = ""
    notice: str = ""


@dataclass(frozen=True, slots=True)
class Page:
    number: int
    artifacts: tuple[Slot, ...]
    checkpoints: tuple[Slot, ...]
    result: Slot
    log: Slot
    more_notice: str
    more_get: str
    stale_ns: int
    """From here on, by this machine's clock, its URLs are old: past 80 % of their life."""
    reads: Mapping[str, str] = field(default_factory=dict[str, str])
    renewals: tuple[Slot, ...] = ()
    """Where an exclusive attempt asks in turn until when it may run, and reads the answer."""

    @classmethod
    def of(cls, fields: Message, *, now_ns: int) -> "Page":
        """KeyError or TypeError when it is no page."""
        return cls(
            fields["n"],
            tuple(Slot(**slot) for slot in fields["artifacts"]),
            tuple(Slot(**slot) for slot in fields["checkpoints"]),
            Slot(**fields["result"]),
            Slot(**fields["log"]),
            fields["more"]["notice"],
            fields["more"]["get"],
            now_ns + int((fields["expires_ns"] - now_ns) * _USED_UP),
            fields.get("reads", {}),
            tuple(Slot("", **slot) for slot in fields.get("renewals", ())),
        )


@dataclass(frozen=True, slots=True)
class Order:
    """`inputs` are JSON forms by name; `timeout` and `grace` are seconds, 0 = none."""

    key: tuple[str, str, int, int]
    input_digest: str
    entry: str
    inputs: Mapping[str, Any]
    trace: str
    timeout: float
    grace: float
    region: str
    bundle_url: str
    bundle_sha256: str
    checkpoint: Message | None
    page: Page
    exclusive: bool

    @classmethod
    def of(cls, data: bytes, *, now_ns: int) -> "Order":
        """ValueError when it can't be understood."""
        try:
            fields = json.loads(data)
            if fields["v"] not in (VERSION, EXCLUSIVE_VERSION):
                known = f"{VERSION} and {EXCLUSIVE_VERSION}"
                raise ValueError(f"an order of version {fields['v']}, this one knows {known}")
            execution, node, attempt, epoch = fields["k"]
            page = Page.of(fields["page"], now_ns=now_ns)
            return cls(
                (execution, node, attempt, epoch),
                fields["d"],
                fields["entry"],
                fields["in"],
                fields["trace"],
                fields["timeout"],
                fields.get("grace", 0.0),
                fields["region"],
                fields["bundle"]["url"],
                fields["bundle"]["sha256"],
                fields["checkpoint"],
                replace(page, reads=fields["reads"]),
                fields["v"] == EXCLUSIVE_VERSION,
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"not an order: {error!r}") from error


class Pages:
    """The newest page, and how to come by the next one. Any number of holders may walk the same
    chain (a page holds the same slots however often it is written); through `keep` and `kept` they
    tell each other, so that one who slept until its URLs were dead still goes on."""

    def __init__(
        self,
        page: Page,
        http: Http,
        *,
        now_ns: Callable[[], int] = time.time_ns,
        keep: Callable[[Message, int], None] = lambda _fields, _at_ns: None,
        kept: Callable[[], Page | None] = lambda: None,
    ) -> None:
        self.page = page
        self.http = http
        self._now_ns = now_ns
        self._keep = keep
        self._kept = kept

    def stale(self) -> bool:
        """Whether the URLs are old, also after a look for a page that somebody else fetched."""
        if not self.old(self.page):
            return False
        other = self._kept()
        if other is not None and other.number > self.page.number:
            self.page = other
        return self.old(self.page)

    def old(self, page: Page) -> bool:
        return self._now_ns() >= page.stale_ns

    def step(self) -> bool:
        """One look for the next page. OSError when the store is away."""
        try:
            data = self.http.get(self.page.more_get)
        except Refusal as error:
            if error.status in (403, 404):  # 403: who may not list is not told what is missing
                return False
            raise
        try:
            fields, now_ns = json.loads(data), self._now_ns()
            self.page = Page.of(fields, now_ns=now_ns)
        except (ValueError, KeyError, TypeError) as error:
            raise OSError(f"the next page can't be read: {error!r}") from error
        self._keep(fields, now_ns)
        return True

    def ask(self) -> None:
        notice = {"t": "more", "n": self.page.number + 1}
        self.http.put(self.page.more_notice, json.dumps(notice).encode())

    def turn(self) -> None:
        """Waits for the next page. OSError when none comes."""
        begun = self.http.clock()
        asked = begun - _ASK_AGAIN_SECONDS
        while not self.step():
            now = self.http.clock()
            if now - begun > PAGE_SECONDS:
                raise OSError(f"the agent signed no more URLs in {PAGE_SECONDS:g} s")
            if now - asked >= _ASK_AGAIN_SECONDS:
                self.ask()
                asked = now
            self.http.sleep(_POLL_SECONDS)


class SignedStore:
    """As `AttemptStore`, in a pod. `noted` is told of each checkpoint once the agent's notice of it
    is written. URLs may end before their time (a clock that is wrong, a key that was changed): a
    403 asks once for the next page."""

    def __init__(
        self,
        pages: Pages,
        *,
        region: str,
        scratch: str,
        noted: Callable[[Artifact, int], None] = lambda _artifact, _at: None,
    ) -> None:
        self.region = region
        self.scratch = scratch
        self._pages = pages
        self._http = pages.http
        self._abroad = replace(pages.http, patience=ABROAD_SECONDS, timeout=ABROAD_SILENCE_SECONDS)
        self._noted = noted
        self._reads: dict[str, str] = {}
        self._notices: dict[str, str] = {}
        self._lock = threading.Lock()
        self._last: Page | None = None
        self._artifacts: deque[Slot] = deque()
        self._checkpoints: deque[Slot] = deque()
        self._take_page()

    def put_bytes(self, data: bytes, *, name: str, kind: str = "file") -> Artifact:
        del name  # the key is the slot's
        slot = self._put(self._artifacts, data)
        return Artifact(slot.uri, _sha256(data), len(data), self.region, kind)

    def put_file(self, path: Path, *, name: str = "", kind: str = "file") -> Artifact:
        size = path.stat().st_size
        if size > OBJECT_LIMIT:
            raise TooLarge(
                f"{path} has {size} bytes; a task in a pod can hand on {OBJECT_LIMIT} in one file",
                remedy="write several files",
            )
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        slot = self._put(self._artifacts, path)
        uri = f"{slot.uri}#{quote(name or path.name, safe='')}"
        return Artifact(uri, digest, size, self.region, kind)

    def put_checkpoint(self, data: bytes) -> Artifact:
        slot = self._put(self._checkpoints, data)
        self._reads[slot.uri] = slot.get
        self._notices[slot.uri] = slot.notice
        return Artifact(slot.uri, _sha256(data), len(data), self.region)

    def saved(self, _key: list[str | int], artifact: Artifact) -> None:
        """Tells the agent, which tells the ledger: the next try finds this checkpoint."""
        at = time.time_ns()
        notice = {"t": "saved", "artifact": plain(artifact), "at": at}
        try:
            self._tell(self._notices.pop(artifact.uri), json.dumps(notice).encode())
        except OSError as error:
            raise StoreFull(f"can't tell of the checkpoint {artifact.uri}: {error}") from error
        self._noted(artifact, at)

    def get_bytes(self, artifact: Artifact) -> bytes:
        try:
            data = self._read(artifact, self._reader(artifact).get)
        except OSError as error:
            raise UnreadableInput(artifact.uri, str(error)) from error
        if artifact.sha256 and _sha256(data) != artifact.sha256:
            raise UnreadableInput(artifact.uri, "its content is not what was stored")
        return data

    def get_file(self, artifact: Artifact) -> Path:
        """A copy for this attempt; bytes that are not those of `artifact.sha256` are unreadable."""
        self._address(artifact)
        target = Path(tempfile.mkdtemp(prefix="input-", dir=self.scratch or None))
        target /= name_of(artifact.uri)
        try:
            with target.open("wb", buffering=0) as file:
                http = self._reader(artifact)
                digest = self._read(artifact, lambda url: http.get_into(url, file))
        except DiskError as error:
            raise OSError(f"no room here for {artifact.bytes} bytes of an input: {error}") from None
        except OSError as error:
            raise UnreadableInput(artifact.uri, str(error)) from error
        if artifact.sha256 and digest != artifact.sha256:
            raise UnreadableInput(artifact.uri, "its content is not what was stored")
        return target

    def _reader(self, artifact: Artifact) -> Http:
        return self._http if artifact.region == self.region else self._abroad

    def _read(self, artifact: Artifact, read: Callable[[str], T]) -> T:
        page, url = self._address(artifact)
        try:
            return read(url)
        except Refusal as refusal:
            if refusal.status != _DEAD:
                raise
        self._renew(page)
        return read(self._address(artifact)[1])

    def _tell(self, notice: str, data: bytes) -> None:
        page = self._last
        try:
            self._http.put(notice, data)
        except Refusal as refusal:
            if refusal.status != _DEAD or page is None:
                raise
            self._renew(page)
            self._http.put(self._slot(self._checkpoints)[1].notice, data)

    def _address(self, artifact: Artifact) -> tuple[Page, str]:
        with self._lock:
            try:
                if self._pages.stale():
                    self._pages.turn()
            except OSError as error:
                raise UnreadableInput(artifact.uri, f"its URL is too old: {error}") from error
            self._take_page()
            if url := self._reads.get(artifact.uri):
                return self._pages.page, url
        raise UnreadableInput(artifact.uri, "the order of this attempt does not name it")

    def _put(self, slots: deque[Slot], data: bytes | Path) -> Slot:
        page, slot = self._slot(slots)
        try:
            try:
                self._http.put(slot.put, data)
            except Refusal as refusal:
                if refusal.status != _DEAD:
                    raise
                self._renew(page)
                _, slot = self._slot(slots)
                self._http.put(slot.put, data)
        except OSError as error:
            raise StoreFull(f"can't write to the store at {slot.uri}: {error}") from error
        return slot

    def _slot(self, slots: deque[Slot]) -> tuple[Page, Slot]:
        with self._lock:
            try:
                stale = self._pages.stale()
                self._take_page()
                if stale or not slots:
                    self._pages.turn()
                    self._take_page()
            except OSError as error:
                raise StoreFull(f"no slot to write to: {error}") from error
            return self._pages.page, slots.popleft()

    def _renew(self, dead: Page) -> None:
        """OSError when no other page comes; at once when this one can't even ask for it."""
        with self._lock:
            if self._pages.page is dead:
                self._pages.turn()
                self._artifacts.clear()
                self._checkpoints.clear()
            self._take_page()

    def _take_page(self) -> None:
        page, last = self._pages.page, self._last
        if page is last:
            return
        if last is not None and self._pages.old(last):
            self._artifacts.clear()
            self._checkpoints.clear()
        self._last = page
        self._artifacts.extend(page.artifacts)
        self._checkpoints.extend(page.checkpoints)
        self._reads.update(page.reads)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
