"""A warm pod's process 1 as a real process, with a door that the test holds."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from whimbrel.bundle import make_bundle
from whimbrel.runtime_frames import Decoder, encode

from tests.object_server import ObjectServer, object_server

CODE = """
import os, signal, sys, time
from pathlib import Path
from whimbrel import File, current_context, task

count = 0

@task
def double(n: int) -> int:
    return 2 * n

@task
def counts() -> list[int]:
    global count
    count += 1
    return [count, os.getpid(), os.getppid()]

@task
def talks(n: int) -> int:
    print("talking of", n)
    print("and complaining", file=sys.stderr)
    return n

@task
def slow(mark: str) -> int:
    print("asleep")
    Path(mark).write_text(str(os.getpid()))
    time.sleep(60)
    return 1

@task
def crash(n: int) -> int:
    print("about to")
    os.kill(os.getpid(), n)
    time.sleep(60)
    return n

@task
def until(mark: str) -> int:
    while not Path(mark).exists():
        time.sleep(0.005)
    return 7

@task
def files(n: int) -> list[File]:
    for i in range(n):
        Path(f"f{i}.txt").write_text(str(i))
    return [File(f"f{i}.txt") for i in range(n)]

@task
def litters(folder: str) -> list[str]:
    found = [*os.listdir(), *os.listdir(folder)]
    Path("left").write_text("")
    Path(folder, "there").write_text("")
    Path(folder, "sub").mkdir()
    return found

@task
def steps(mark: str) -> int:
    Path(mark).write_text("")
    while not current_context().migration_requested:
        time.sleep(0.005)
    current_context().checkpoint.write(b"so far")
    return 1

@task
def environment() -> str:
    c = current_context()
    order = [name for name in os.environ if name.startswith("WHIMBREL_WARM")]
    opened = len(os.listdir("/proc/self/fd"))
    return f"{c.execution_id} {c.attempt} {c.epoch} {c.region} {order} {opened}"

@task
def closes() -> int:
    os.closerange(0, 256)
    return 1
"""
BROKEN = "import os\nfrom whimbrel import task\nos._exit(9)\n"


@dataclass
class Pod:
    """The agent's side by hand."""

    server: ObjectServer
    folder: Path
    code: dict[str, str]
    listener: socket.socket
    grace: float = 30.0
    orphan: float = 30.0
    inbox: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    decoder: Decoder = field(default_factory=Decoder)
    agent: socket.socket | None = None
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> dict[str, Any]:
        work, temporary = self.folder / "work", self.folder / "tmp"
        work.mkdir()
        temporary.mkdir()
        host, port = self.listener.getsockname()
        seat = {"door": f"{host}:{port}", "pool": "p1", "pod": "w-1"}
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "whimbrel.runtime_warm"],
            cwd=work,
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
                "WHIMBREL_WARM": json.dumps(
                    {**seat, "empty": [str(temporary)], "orphan": self.orphan}
                ),
                "WHIMBREL_WARM_TOKEN": "secret",
            },
        )
        return self.accept()

    def accept(self) -> dict[str, Any]:
        self.agent, _ = self.listener.accept()
        self.agent.settimeout(30)
        self.decoder, self.inbox = Decoder(), []
        return self.hear("warm")

    def welcome(self) -> None:
        self.say({"t": "welcome", "code": self.code, "region": "us-east", "grace": self.grace})

    def hang_up(self) -> None:
        assert self.agent is not None
        self.agent.close()

    def say(self, *messages: dict[str, Any]) -> None:
        assert self.agent is not None
        self.agent.sendall(encode(list(messages)))

    def task(self, seq: int, entry: str, *, timeout: float = 0, **inputs: Any) -> dict[str, Any]:
        return {
            "t": "task",
            "seq": seq,
            "entry": entry if ":" in entry else f"flow:{entry}",
            "in": inputs,
            "trace": "",
            "checkpoint": None,
            "reads": {},
            "reads_until_ns": time.time_ns() + 3600 * 10**9,
            "meta": {"k": ["p/d/x", f"n{seq}", 1, 2], "d": f"digest {seq}", "timeout": timeout},
        }

    def hear(self, kind: str, seq: int = 0) -> dict[str, Any]:
        """The next message of that kind; others stay to be heard later."""
        assert self.agent is not None
        while True:
            for message in self.inbox:
                if message["t"] == kind and seq in (0, message.get("seq")):
                    self.inbox.remove(message)
                    return message
            broken = [m for m in self.inbox if m["t"] == "broke" and m["seq"] == seq]
            assert not broken, broken
            data = self.agent.recv(65536)
            assert data, f"the pod hung up; it had said {self.inbox}"
            self.inbox += self.decoder.feed(data)

    def value(self, seq: int) -> Any:
        return json.loads(self.hear("done", seq)["value"])["o0"]

    def page(self, seq: int, number: int) -> dict[str, Any]:
        def slot(name: str) -> dict[str, str]:
            return {"uri": f"s3://b/{seq}/{name}", "put": f"{self.server.url}/b/{seq}/{name}"}

        page = {
            "n": number,
            "artifacts": [slot(f"{number}-{i}") for i in range(2)],
            "checkpoints": [slot(f"{number}-c{i}") | {"get": "http://nowhere"} for i in range(2)],
            "result": slot("result"),
            "log": slot("log"),
            "more": {"notice": "", "get": ""},
            "expires_ns": time.time_ns() + 3600 * 10**9,
        }
        return {"t": "page", "seq": seq, "page": page}

    def appears(self, name: str) -> str:
        """What a task wrote there, once it has."""
        path, deadline = self.folder / name, time.monotonic() + 30
        while not (path.exists() and (text := path.read_text() or "there")):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        return text


@pytest.fixture
def cold(tmp_path: Path) -> Iterator[Pod]:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "flow.py").write_text(CODE)
    (tmp_path / "code" / "broken.py").write_text(BROKEN)
    digest, archive = make_bundle(tmp_path / "code")
    with object_server() as server, socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(30)
        code = {"url": server.put("b/bundle", archive), "sha256": digest}
        made = Pod(server, tmp_path, code, listener)
        yield made
        if made.agent is not None:
            made.agent.close()
        if made.process is not None:
            with suppress(ProcessLookupError):
                made.process.kill()
            made.process.wait(30)


@pytest.fixture
def pod(cold: Pod) -> Pod:
    hello = cold.start()
    assert (hello["pool"], hello["pod"], hello["token"]) == ("p1", "w-1", "secret")
    assert (hello["ready"], hello["running"], hello["kept"]) == (False, None, [])
    cold.welcome()
    cold.hear("ready")
    return cold
