"""A real federation for the tests: `whimbrel up` as a person starts it, its processes, its data.

Nothing here knows the inside of a server: faults are signals to pids that `sandbox.json` names,
results come from the command line, what was committed is read from the database file.
"""

import contextlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
PROGRAMS = Path(__file__).parent / "programs"
DEADLINE = 90.0
"""Seconds an event may take. Too short fails on a busy machine, too long only delays a failure."""


def eventually(what: str, probe: Callable[[], T], *, deadline: float = DEADLINE) -> T:
    """The first true answer of `probe`; fails with `what` after the deadline."""
    end = time.monotonic() + deadline
    while True:
        if answer := probe():
            return answer
        assert time.monotonic() < end, f"not within {deadline:.0f} s: {what}"
        time.sleep(0.05)


class Federation:
    def __init__(
        self,
        folder: Path,
        *,
        environment: Mapping[str, str] = {},
        routers: int = 1,
        options: Sequence[str] = (),
        inside: Sequence[str] = (),
        preset: str = "test",
    ) -> None:
        """`options` are further ones of `whimbrel up`; `inside` is written before every command (a
        network of its own)."""
        self.folder = folder
        self.data = folder / "data"
        self.environment = {**os.environ, **environment, "NO_COLOR": "1", "COLUMNS": "200"}
        self.routers = routers
        self.options = options
        self.inside = inside
        self.preset = preset

    def whimbrel(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        environment = self.environment
        if (self.data / "sandbox.json").exists():
            environment = {**environment, "WHIMBREL_ENDPOINT": self.sandbox["endpoint"]}
        done = subprocess.run(
            [*self.inside, sys.executable, "-m", "whimbrel.cli", *arguments],
            env=environment, cwd=self.folder, capture_output=True, text=True, timeout=240,
        )  # fmt: skip
        assert not check or done.returncode == 0, f"{arguments}: {done.stdout}\n{done.stderr}"
        return done

    def start(self) -> None:
        self.whimbrel(
            "up", "--data-dir", str(self.data), "--ports", "auto", "--preset", self.preset,
            "--routers", str(self.routers), "--detach", *self.options,
        )  # fmt: skip

    def stop(self) -> None:
        self.whimbrel("down", "--data-dir", str(self.data), check=False)

    @property
    def sandbox(self) -> dict[str, Any]:
        return json.loads((self.data / "sandbox.json").read_text())

    def pid(self, name: str) -> int:
        return self.sandbox["processes"][name]

    def restarted(self, name: str, old: int) -> bool:
        return self.sandbox["processes"].get(name, old) != old

    def signal(self, name: str, number: signal.Signals) -> int:
        pid = self.pid(name)
        os.kill(pid, number)
        return pid

    def kill_and_await_restart(self, *names: str) -> None:
        """SIGKILL; the supervisor starts servers again, under another pid."""
        old = {name: self.signal(name, signal.SIGKILL) for name in names}
        for name, pid in old.items():
            eventually(f"{name} is started again", lambda n=name, p=pid: self.restarted(n, p))

    def sandbox_command(self, *arguments: str) -> None:
        self.whimbrel("sandbox", *arguments, "--data-dir", str(self.data))

    def launch(
        self, name: str, *, program: str = "steps", workflow: str = "steps", **inputs: str
    ) -> "Run":
        folder = self.folder / name
        folder.mkdir()
        options = [item for key, value in inputs.items() for item in (f"--{key}", value)]
        if program == "steps":
            options += ["--folder", str(folder)]
        self.whimbrel(
            "run", str(PROGRAMS / f"{program}.py"), workflow, "--remote", "--name", name, *options
        )
        return Run(self, name, folder)

    @contextlib.contextmanager
    def database(self) -> Iterator[sqlite3.Connection]:
        path = self.data / "control-plane.db"
        connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)
        connection.row_factory = sqlite3.Row
        try:
            yield connection
        finally:
            connection.close()

    def sessions(self) -> dict[str, int]:
        """Cluster -> epoch of its newest session: it grows when a session was lost."""
        with self.database() as database:
            return dict(
                tuple(row) for row in database.execute("SELECT name, cluster_epoch FROM cluster")
            )

    def cluster(self, name: str) -> dict[str, Any]:
        return json.loads(self.whimbrel("cluster", "get", name, "-o", "json").stdout)

    def wipe(self) -> None:
        shutil.rmtree(self.data, ignore_errors=True)


class Run:
    def __init__(self, federation: Federation, name: str, folder: Path) -> None:
        self.federation, self.name, self.folder = federation, name, folder

    @property
    def execution(self) -> dict[str, Any]:
        return json.loads(
            self.federation.whimbrel("execution", "get", self.name, "-o", "json").stdout
        )

    def journal(self) -> list[tuple[str, ...]]:
        path = self.folder / "journal"
        return (
            [tuple(line.split()) for line in path.read_text().splitlines()] if path.exists() else []
        )

    def starts(self, task: str) -> int:
        """How often user code of a node whose id ends in, or belongs to, `task` has begun."""
        names = {node["id"]: node["task"].rsplit(".", 1)[-1] for node in self.execution["nodes"]}
        return sum(names.get(line[0]) == task for line in self.journal())

    def at_gate(self, starts: int = 1) -> str:
        """Waits until `gate` has begun that often; answers the region it last began in."""
        eventually(f"{self.name} reaches its gate", lambda: self._gates() >= starts)
        return [line for line in self.journal() if self._is_gate(line)][-1][3]

    def _is_gate(self, line: tuple[str, ...]) -> bool:
        if not hasattr(self, "_names"):
            self._names = {n["id"]: n["task"].rsplit(".", 1)[-1] for n in self.execution["nodes"]}
        return self._names.get(line[0]) == "gate"

    def _gates(self) -> int:
        return sum(self._is_gate(line) for line in self.journal())

    def open(self) -> None:
        (self.folder / "open").touch()

    def row(self, sql: str) -> list[sqlite3.Row]:
        with self.federation.database() as database:
            return database.execute(sql, {"x": f"default/development/{self.name}"}).fetchall()

    def told(self, kind: str, *, after: float = 0.0) -> float:
        """Unix seconds of the first line of this kind in the run's story after that time."""
        return eventually(f"{self.name} tells {kind}", lambda: self._told(kind, after))

    def _told(self, kind: str, after: float) -> float:
        rows = self.row(f"SELECT at_ns FROM timeline WHERE execution = :x AND kind = '{kind}'")
        return next((row[0] / 1e9 for row in rows if row[0] > after * 1e9), 0.0)

    def phase(self) -> str:
        return self.row("SELECT phase FROM execution WHERE id = :x")[0]["phase"]

    def epoch(self) -> int:
        return self.row("SELECT epoch FROM execution_fence WHERE execution = :x")[0]["epoch"]

    def await_committed(self, outputs: int) -> None:
        """Until that many outputs are live in the ledger: the next fault then can't unmake them."""
        eventually(
            f"{outputs} outputs of {self.name} are committed",
            lambda: (
                len(self.row("SELECT 1 FROM node_output WHERE execution = :x AND live")) >= outputs
            ),
        )

    def await_phase(self, *phases: str) -> str:
        return eventually(f"{self.name} is {phases}", lambda: (p := self.phase()) in phases and p)

    def causes(self) -> list[str]:
        return [row["cause"] for row in self.row(
            "SELECT cause FROM placement WHERE execution = :x AND cluster != '' ORDER BY epoch"
        )]  # fmt: skip
