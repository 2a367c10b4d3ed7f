"""The data folder of an embedded federation: who runs in it, which version wrote it, what is where.

Used by `up`, `down` and `sandbox`; the supervisor alone writes here. A lock says whether it runs,
`sandbox.json` what.
"""

import contextlib
import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from whimbrel.errors import NotFound, Refused
from whimbrel.spec import sha256

VERSION = "1"
"""Of what lies in the folder. A release that can't read an older one raises it."""
SOCKET_PATH_LIMIT = 100
"""Bytes of a Unix socket's path that every system takes; a longer one is put into the temporary
folder."""


@dataclass(frozen=True, slots=True)
class Folder:
    root: Path

    @property
    def sandbox_file(self) -> Path:
        return self.root / "sandbox.json"

    @property
    def agents_file(self) -> Path:
        return self.root / "agents.json"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def socket(self) -> Path:
        path = self.root / "supervisor.sock"
        if len(os.fsencode(path)) <= SOCKET_PATH_LIMIT:
            return path
        return Path(tempfile.gettempdir()) / f"whimbrel-{sha256(str(self.root))[:16]}.sock"

    def log(self, name: str) -> Path:
        return self.logs / f"{name.replace('/', '-')}.log"

    def store(self, region: str) -> Path:
        return self.root / region / "store"

    def agent(self, region: str) -> Path:
        return self.root / region / "agent"

    def prepare(self) -> None:
        """Makes the folder, or refuses one that another version wrote."""
        stamp = self.root / "version"
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            found = stamp.read_text().strip() if stamp.exists() else ""
            if found and found != VERSION:
                raise Refused(
                    f"{self.root} was written by another version of whimbrel "
                    f"(its layout is {found}, this one reads {VERSION})",
                    remedy="use the version that wrote it, or begin anew: whimbrel down --purge "
                    f"--data-dir {self.root}",
                )
            if not found:
                if any(entry.name not in ("lock", "logs") for entry in self.root.iterdir()):
                    raise Refused(
                        f"{self.root} is not empty and not a data folder of whimbrel",
                        remedy="name another folder with --data-dir",
                    )
                stamp.write_text(VERSION + "\n")
            self.logs.mkdir(exist_ok=True)
        except OSError as error:
            raise Refused(
                f"can't write to {self.root}: {error.strerror}",
                remedy="name another with --data-dir",
            ) from error

    @contextlib.contextmanager
    def locked(self) -> Generator[None]:
        """Held by the one supervisor of this folder for as long as it lives, also when it is
        killed."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            handle = (self.root / "lock").open("a+")
        except OSError as error:
            raise Refused(
                f"can't write to {self.root}: {error.strerror}",
                remedy="name another with --data-dir",
            ) from error
        with handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Refused(
                    f"a federation already runs in {self.root}",
                    remedy=f"stop it: whimbrel down --data-dir {self.root}; or name another folder",
                ) from None
            handle.truncate(0)
            handle.write(f"{os.getpid()}\n")
            handle.flush()
            yield

    @property
    def running(self) -> bool:
        """Whether a supervisor holds the lock now."""
        try:
            with (self.root / "lock").open("r") as handle:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return False
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True

    def write_sandbox(self, content: dict[str, Any]) -> None:
        """Whole or not at all: readers poll this file."""
        part = self.sandbox_file.with_suffix(".part")
        part.write_text(json.dumps(content, indent=2) + "\n")
        part.replace(self.sandbox_file)

    def sandbox(self) -> dict[str, Any]:
        try:
            return json.loads(self.sandbox_file.read_text())
        except FileNotFoundError:
            raise NotFound(
                f"no federation runs in {self.root}",
                remedy="start one: whimbrel up; or name its folder with --data-dir",
            ) from None

    def purge(self) -> None:
        shutil.rmtree(self.root, ignore_errors=True)
