"""Where the clusters keep their things, why a machine can't run them, and locks between test runs.

Read by every module of this folder; asks nobody. Binaries and image layers outlive a checkout
(CACHE), everything of a running cluster is under STATE and gone after `down`.
"""

import contextlib
import fcntl
import os
import shutil
import sys
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
Say = Callable[[str], None]
"""Takes one line of progress."""

CACHE = Path(
    os.environ.get("WHIMBREL_CLUSTERS_CACHE") or Path.home() / ".cache" / "whimbrel-clusters"
)
STATE = Path("/run/whimbrel-clusters")
CNI_PLUGINS = (Path("/usr/lib/cni"), Path("/opt/cni/bin"))
TOOLS = ("containerd", "ctr", "runc", "ip", "iptables", "nsenter", "openssl", "ldd")
PATIENCE = 60.0
"""Seconds a part may take to come up. Too short fails a busy machine, too long hides a failure."""
WORTH_TELLING = 5.0
"""Seconds of waiting for a lock that nobody needs to be told of."""


def why_not() -> str:
    """What this machine lacks to run clusters, in one line; empty when it can."""
    if not sys.platform.startswith("linux"):
        return "clusters need Linux"
    if os.geteuid() != 0:
        return "clusters need root"
    missing = [tool for tool in TOOLS if not shutil.which(tool)]
    if not any((folder / "bridge").exists() for folder in CNI_PLUGINS):
        missing.append("CNI plugins")
    if not shutil.which("go"):
        missing.append("go")
    return f"clusters need {', '.join(missing)} (see tools/setup.sh)" if missing else ""


def until(what: str, probe: Callable[[], T], *, patience: float = PATIENCE) -> T:
    """The first true answer of `probe`; TimeoutError with `what` after `patience` seconds."""
    end = time.monotonic() + patience
    while True:
        if answer := probe():
            return answer
        if time.monotonic() > end:
            raise TimeoutError(f"not within {patience:.0f} s: {what}")
        time.sleep(0.1)


@contextlib.contextmanager
def locked(
    name: str, *, folder: Path = STATE, patience: float = 900.0, waiting: Say | None = None
) -> Generator[None]:
    """One process of this machine at a time; the lock falls with its process, however that ends."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f".{name}.lock").open("w") as file:
        began, told = time.monotonic(), waiting is None

        def taken() -> bool:
            nonlocal told
            done = _try_lock(file.fileno())
            if not done and not told and time.monotonic() > began + WORTH_TELLING:
                told = True
                waiting(f"waiting for another process that holds {file.name}")  # type: ignore[misc]
            return done

        until(f"lock {file.name}", taken, patience=patience)
        yield


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
