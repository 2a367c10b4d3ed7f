"""What a warm pod fetches from and writes to the region's store itself: the code, once, and output.

Called by process 1 (`runtime_warm.py`), with URLs that the agent signed.
"""

import hashlib
import os
import sys
from pathlib import Path

from whimbrel.bundle import extract_bundle
from whimbrel.errors import WhimbrelError
from whimbrel.runtime_frames import Message
from whimbrel.runtime_pod_child import Desk
from whimbrel.runtime_pod_http import DiskError, Http
from whimbrel.runtime_pod_watch import LOG_LIMIT
from whimbrel.runtime_store import plain
from whimbrel.spec import Artifact, Owner

CODE_SECONDS = 120.0
"""To come by the code. Shorter gives up while a store restarts, longer hides a pod that will never
be ready."""
LOG_SECONDS = 15.0
"""To store a task's output. Shorter loses it in a short outage, longer holds up the next task."""


class Unfit(Exception):
    """This pod can run nothing."""

    def __init__(self, owner: Owner, message: str) -> None:
        super().__init__(message)
        self.owner = owner


def fetch_code(code: Message, desk: Desk) -> None:
    """Raises Unfit."""
    archive = desk.folder / "bundle.tar"
    try:
        with archive.open("wb", buffering=0) as file:
            digest = Http(patience=CODE_SECONDS).get_into(code["url"], file)
    except (OSError, DiskError) as error:
        why = f"the code can't be had from the region's store: {error}"
        raise Unfit(Owner.SYSTEM, why) from error
    if digest != code["sha256"]:
        raise Unfit(Owner.SYSTEM, "the code in the region's store is not what was registered")
    try:
        extract_bundle(archive, desk.bundle)
    except WhimbrelError as error:
        raise Unfit(error.owner, f"the code can't be unpacked: {error}") from error
    archive.unlink()


def put_log(slot: Message, path: Path, *, region: str) -> Message | None:
    """None when the store does not take it: a result is worth more than its log."""
    try:
        with path.open("rb+") as file:
            if os.fstat(file.fileno()).st_size > LOG_LIMIT:
                file.truncate(LOG_LIMIT)
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            size = os.fstat(file.fileno()).st_size
        Http(patience=LOG_SECONDS, timeout=LOG_SECONDS).put(slot["put"], path)
    except OSError as error:
        print(f"whimbrel: the log can't be stored: {error}", file=sys.stderr)  # noqa: T201
        return None
    return plain(Artifact(slot["uri"], digest, size, region))
