"""A PostgreSQL for the tests: the one WHIMBREL_TEST_POSTGRES names, else one started from Debian's
package in a temporary folder, else the reason why there is none."""

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)


class Postgres:
    """One server, in a folder of its own; started and stopped as often as a test likes."""

    def __init__(self) -> None:
        # Not in pytest's own folder: that is closed to the user that PostgreSQL has to run as.
        self._data = Path(tempfile.mkdtemp(prefix="whimbrel-postgres-"))
        self._become: list[str] = []
        if os.geteuid() == 0:
            # PostgreSQL refuses to run as root; its package made a user for it.
            shutil.chown(self._data, "postgres")
            self._become = ["runuser", "-u", "postgres", "--"]
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self._run("initdb", "-D", self._db, "-A", "trust", "-U", "postgres", "--no-sync")

    @property
    def url(self) -> str:
        return f"postgresql+asyncpg://postgres@127.0.0.1:{self._port}/postgres"

    @property
    def _db(self) -> str:
        return str(self._data / "db")

    def start(self) -> None:
        options = f"-p {self._port} -k {self._data} -c listen_addresses=127.0.0.1 -c fsync=off"
        log = str(self._data / "log")
        self._run("pg_ctl", "-D", self._db, "-w", "-l", log, "-o", options, "start")

    def stop_at_once(self) -> None:
        """As by a crash: whatever is in flight is lost, what was committed is not."""
        self._run("pg_ctl", "-D", self._db, "-w", "-m", "immediate", "stop")

    def remove(self) -> None:
        if (self._data / "db" / "postmaster.pid").exists():
            self.stop_at_once()
        shutil.rmtree(self._data)

    def _run(self, name: str, *arguments: str) -> None:
        subprocess.run(
            [*self._become, str(BINARIES[0] / name), *arguments],
            check=True, cwd="/", stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, timeout=60,
        )  # fmt: skip


@contextlib.contextmanager
def server() -> Iterator[Postgres | None]:
    """Running; None when it can't be had."""
    if not BINARIES or (os.geteuid() == 0 and not shutil.which("runuser")):
        yield None
        return
    made = Postgres()
    try:
        made.start()
        yield made
    finally:
        made.remove()


@contextlib.contextmanager
def postgres() -> Iterator[str]:
    """The URL of its `postgres` database; "" and nothing started when it can't be had."""
    if url := os.environ.get("WHIMBREL_TEST_POSTGRES", ""):
        yield url
        return
    with server() as made:
        yield made.url if made is not None else ""
