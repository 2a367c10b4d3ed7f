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


@contextlib.contextmanager
def postgres() -> Iterator[str]:
    """The URL of its `postgres` database; "" and nothing started when it can't be had."""
    if url := os.environ.get("WHIMBREL_TEST_POSTGRES", ""):
        yield url
        return
    if not BINARIES or (os.geteuid() == 0 and not shutil.which("runuser")):
        yield ""
        return
    # Not in pytest's own folder: that is closed to the user that PostgreSQL has to run as.
    data = Path(tempfile.mkdtemp(prefix="whimbrel-postgres-"))
    become: list[str] = []
    if os.geteuid() == 0:
        # PostgreSQL refuses to run as root; its package made a user for it.
        shutil.chown(data, "postgres")
        become = ["runuser", "-u", "postgres", "--"]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    def run(name: str, *arguments: str) -> None:
        subprocess.run(
            [*become, str(BINARIES[0] / name), *arguments],
            check=True, cwd="/", stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, timeout=60,
        )  # fmt: skip

    run("initdb", "-D", str(data / "db"), "-A", "trust", "-U", "postgres", "--no-sync")
    options = f"-p {port} -k {data} -c listen_addresses=127.0.0.1 -c fsync=off"
    run("pg_ctl", "-D", str(data / "db"), "-w", "-l", str(data / "log"), "-o", options, "start")
    try:
        yield f"postgresql+asyncpg://postgres@127.0.0.1:{port}/postgres"
    finally:
        run("pg_ctl", "-D", str(data / "db"), "-w", "-m", "immediate", "stop")
        shutil.rmtree(data)
