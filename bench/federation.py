"""A fresh federation for one run of the bench, started and stopped as a person does it.

The measures get its client and the pids of all its processes; its data folder goes with the run.
"""

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import psutil
from whimbrel import Client

PROGRAMS = Path(__file__).parent / "programs"


def load_program(name: str = "flows") -> ModuleType:
    """The workflows as a user's module: loaded from its own folder, not as part of the bench."""
    spec = importlib.util.spec_from_file_location(name, PROGRAMS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


class Federation:
    def __init__(self, data: Path, *, environment: Mapping[str, str] = {}) -> None:
        self.data = data
        self._environment = {**os.environ, **environment, "NO_COLOR": "1"}

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "whimbrel.cli", *arguments],
            env=self._environment, capture_output=True, text=True, timeout=240,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"whimbrel {' '.join(arguments)}: {done.stdout}{done.stderr}")
        return done

    def start(self, *, preset: str = "lan") -> float:
        """Seconds from the command to its return, ready."""
        start = time.perf_counter()
        self.command("up", "--data-dir", str(self.data), "--ports", "auto", "--preset", preset,
                     "--detach")  # fmt: skip
        return time.perf_counter() - start

    def stop(self) -> None:
        # What a killed agent left behind must not outlive the run either.
        orphans = [p for pid in self.workers for p in _process(pid)]
        with contextlib.suppress(RuntimeError):
            self.command("down", "--data-dir", str(self.data))
        for process in orphans:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    @property
    def sandbox(self) -> dict[str, Any]:
        return json.loads((self.data / "sandbox.json").read_text())

    @property
    def pids(self) -> dict[str, int]:
        return {name: pid for name, pid in self.sandbox["processes"].items() if pid}

    @property
    def workers(self) -> list[int]:
        """Children of the agents, and of agents that are gone."""
        found = list[int]()
        for file in self.data.glob("*/agent/**/*.json"):
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                found.append(int(json.loads(file.read_text())["pid"]))
        return found

    @property
    def roots(self) -> list[int]:
        return [*self.pids.values(), *self.workers]

    def kill_agent(self, region: str) -> float:
        """SIGKILL of the agent and everything it runs; Unix seconds of it."""
        agent = psutil.Process(self.pids[f"agent/{region}"])
        victims = [agent, *agent.children(recursive=True)]
        at = time.time()
        for victim in victims:
            with contextlib.suppress(psutil.NoSuchProcess):
                victim.send_signal(signal.SIGKILL)
        return at

    def freeze_agent(self, region: str) -> None:
        """Its tasks go on."""
        os.kill(self.pids[f"agent/{region}"], signal.SIGSTOP)

    def thaw_agent(self, region: str) -> None:
        os.kill(self.pids[f"agent/{region}"], signal.SIGCONT)

    def sandbox_do(self, verb: str, region: str) -> None:
        self.command("sandbox", verb, region, "--data-dir", str(self.data))

    def heal(self, region: str) -> None:
        self.sandbox_do("heal", region)

    def client(self) -> Client:
        return Client(self.sandbox["endpoint"])


def _process(pid: int) -> list[psutil.Process]:
    try:
        return [psutil.Process(pid)]
    except psutil.NoSuchProcess:
        return []


@contextlib.contextmanager
def federation(
    data: Path, *, environment: Mapping[str, str] = {}, preset: str = "lan"
) -> Iterator[Federation]:
    whole = Federation(data, environment=environment)
    whole.start(preset=preset)
    try:
        yield whole
    finally:
        whole.stop()
