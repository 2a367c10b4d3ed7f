"""Process 1 of a task's pod: gets the order, watches over the child that runs the user's code,
writes the answer.

Started as `python -P -m whimbrel.runtime_pod` with WHIMBREL_ORDER and WHIMBREL_ORDER_SHA256; the
agent reads the answer from the termination message (`data_plane_agent/pods/orders.py`). It talks to
nobody but the region's store, and outlives the child's crash.
"""

import hashlib
import json
import mmap
import os
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from whimbrel import runtime_pod_child
from whimbrel.bundle import extract_bundle
from whimbrel.errors import WhimbrelError
from whimbrel.runtime_frames import Message
from whimbrel.runtime_order import Order, Page, Pages
from whimbrel.runtime_pod_child import Desk
from whimbrel.runtime_pod_http import DiskError, Http
from whimbrel.runtime_pod_renewals import FIRST_SECONDS, Deadline, Renewals
from whimbrel.runtime_pod_watch import Child, how_lost, not_renewed
from whimbrel.runtime_store import plain
from whimbrel.runtime_timer import boottime_ns
from whimbrel.spec import Artifact, Failure, Owner

ORDER_SECONDS = 300.0
"""To come by the order and the code. Shorter gives up while a store restarts, longer hides a pod
that will never start."""
RESULT_SECONDS = 300.0
LOG_SECONDS = 30.0
"""To store the log. A result is worth more: its log may be lost."""
_KILLED = 137
TERMINATION_LOG = "/dev/termination-log"
INLINE_BYTES = 3500
"""Kubernetes keeps 4096 bytes of a termination message; a longer answer goes to the store."""


class NoOrder(Exception):
    """Without it nothing is known but that the pod is of no use."""


@dataclass(frozen=True, slots=True)
class Flag:
    """ "Leave this machine", in memory that the child and its own children see too."""

    page: mmap.mmap

    def __call__(self) -> bool:
        return self.page[0] != 0

    def set(self) -> None:
        self.page[0] = 1


def main() -> int:
    started = time.time_ns()
    moving = Flag(mmap.mmap(-1, mmap.PAGESIZE))
    signal.signal(signal.SIGTERM, lambda _number, _frame: moving.set())
    url, digest = (os.environ.pop(name, "") for name in ("WHIMBREL_ORDER", "WHIMBREL_ORDER_SHA256"))
    desk = Desk(Path(tempfile.mkdtemp(prefix="whimbrel-")))
    try:
        order, pages = None, None
        try:
            order = _order(url, digest)
            pages = _pages(order, desk)
            _fetch_code(order, desk)
        except NoOrder as error:
            return _say(_broke(Failure(Owner.SYSTEM, "order", str(error))), started, order, pages)
        except WhimbrelError as error:
            failure = Failure(error.owner, "import", f"the code can't be unpacked: {error}")
            return _say(_broke(failure), started, order, pages)
        if moving():
            failure = Failure(Owner.SYSTEM, "interrupted", "asked to move before it had begun")
            return _say(_broke(failure), started, order, pages)
        return _run(order, pages, desk, moving)
    finally:
        shutil.rmtree(desk.folder, ignore_errors=True)


def _run(order: Order, pages: Pages, desk: Desk, moving: Flag) -> int:
    started = time.time_ns()
    deadline = Deadline()
    renewals = Renewals(pages, deadline) if order.exclusive else None
    if renewals is not None and not renewals.first():
        said = f"not started: no live renewal of the cluster's session within {FIRST_SECONDS:g} s"
        return _say(_broke(Failure(Owner.SYSTEM, "no_renewal", said)), started, order, pages)
    granted = deadline.newest if renewals is not None else None
    child = Child(
        desk.log,
        timeout=order.timeout,
        grace=order.grace,
        moving=moving,
        pages=pages,
        granted=granted,
    )
    if not child.fork():
        runtime_pod_child.run(
            order, pages, desk, output=child.output, moving=moving, granted=granted
        )
    if renewals is not None:  # a thread: not before the fork
        renewals.begin()
    end = child.watch()
    answer = desk.get("answer")
    if answer is None and end.failure is None and end.oom:
        return _KILLED  # whose fault it was is known to Kubernetes, which knows the limits
    if answer is None:
        over = end.status == -signal.SIGKILL and 0 < deadline.newest() <= boottime_ns()
        answer = _broke(end.failure or (not_renewed() if over else how_lost(end)))
    answer["stdout"] = _store_log(desk, pages, order.region)
    answer["saved"] = desk.get("saved")
    return _say(answer, started, order, pages)


def _order(url: str, digest: str) -> Order:
    if not url:
        raise NoOrder("WHIMBREL_ORDER is not set: this program runs in pods that an agent made")
    try:
        data = Http(patience=ORDER_SECONDS).get(url)
    except OSError as error:
        raise NoOrder(f"the order can't be had from the region's store: {error}") from error
    if hashlib.sha256(data).hexdigest() != digest:
        raise NoOrder("the order in the region's store is not the one this pod was made for")
    try:
        return Order.of(data, now_ns=time.time_ns())
    except ValueError as error:
        raise NoOrder(f"the order can't be understood: {error}") from error


def _pages(order: Order, desk: Desk) -> Pages:
    """Supervisor and child tell each other of pages by a file: either may find the next one."""

    def keep(fields: Message, at_ns: int) -> None:
        desk.put("page", {"page": fields, "at": at_ns})

    def kept() -> Page | None:
        found = desk.get("page")
        return None if found is None else Page.of(found["page"], now_ns=found["at"])

    return Pages(order.page, Http(), keep=keep, kept=kept)


def _fetch_code(order: Order, desk: Desk) -> None:
    archive = desk.folder / "bundle.tar"
    try:
        with archive.open("wb", buffering=0) as file:
            digest = Http(patience=ORDER_SECONDS).get_into(order.bundle_url, file)
    except (OSError, DiskError) as error:
        raise NoOrder(f"the code can't be had from the region's store: {error}") from error
    if digest != order.bundle_sha256:
        raise NoOrder("the code in the region's store is not the one that was registered")
    extract_bundle(archive, desk.bundle)
    archive.unlink()


def _store_log(desk: Desk, pages: Pages, region: str) -> Message | None:
    size = desk.log.stat().st_size
    if not size:
        return None
    slot = pages.page.log
    try:
        Http(patience=LOG_SECONDS).put(slot.put, desk.log)
    except OSError as error:
        sys.stderr.write(f"whimbrel: the log can't be stored: {error}\n")
        return None
    with desk.log.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return plain(Artifact(slot.uri, digest, size, region))


def _broke(failure: Failure) -> Message:
    return {
        "t": "broke",
        "owner": failure.owner,
        "kind": failure.kind,
        "message": failure.message,
        "tb": failure.traceback,
        "unreadable": [],
    }


def _say(answer: Message, started: int, order: Order | None, pages: Pages | None) -> int:
    """Where the agent finds it. The status is for people who look at the pod."""
    answer |= {
        "k": None if order is None else list(order.key),
        "d": "" if order is None else order.input_digest,
        "s": started,
        "e": time.time_ns(),
        "stderr": None,
    }
    answer.setdefault("stdout")
    data = _encoded(answer)
    if len(data) > INLINE_BYTES and pages is None:
        data = _encoded(answer | {"message": str(answer["message"])[:500], "tb": ""})
    elif len(data) > INLINE_BYTES and pages is not None:
        slot = pages.page.result
        stored = {
            "t": "stored",
            "uri": slot.uri,
            "sha256": hashlib.sha256(data).hexdigest(),
            "bytes": len(data),
        }
        try:
            Http(patience=RESULT_SECONDS).put(slot.put, data)
            data = _encoded(stored)
        except OSError as error:
            failure = Failure(Owner.SYSTEM, "store_full", f"can't store the result: {error}"[:500])
            times = {name: answer[name] for name in ("k", "d", "s", "e", "stdout", "stderr")}
            answer = _broke(failure) | times
            data = _encoded(answer)
    Path(os.environ.get("WHIMBREL_TERMINATION_LOG") or TERMINATION_LOG).write_bytes(data)
    return 0 if answer["t"] == "done" else 1


def _encoded(message: Message) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode()


if __name__ == "__main__":
    sys.exit(main())
