"""A pod's process 1 as a real process, with an order served over HTTP."""

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from whimbrel.bundle import make_bundle

from tests.object_server import ObjectServer, object_server

CODE = '''
import os, signal, subprocess, sys, time
from pathlib import Path
from whimbrel import Directory, File, current_context, task

@task
def double(n: int) -> int:
    print("doubling", n)
    print("to stderr", file=sys.stderr)
    return 2 * n

@task
def large(n: int) -> str:
    return "x" * n

@task
def wrong(n: int) -> int:
    raise ValueError(f"no {n}")

@task
def slow(n: int) -> int:
    print("asleep", flush=True)
    time.sleep(60)
    return n

@task
def steps(n: int) -> str:
    """Counts on from its checkpoint."""
    checkpoint = current_context().checkpoint
    begun = int(checkpoint.read() or b"0")
    for step in range(begun, n):
        checkpoint.write(str(step + 1).encode())
        print("step", step + 1, flush=True)
        if os.environ.get("SLOW") and step == 1:
            while not current_context().migration_requested:
                time.sleep(0.01)
    return f"{begun} to {n}"

@task
def killed(n: int) -> int:
    os.kill(os.getpid(), n)
    time.sleep(60)
    return n

@task
def flood(n: int) -> int:
    line = b"y" * 1023 + b"\\n"
    for _ in range(n):
        os.write(1, line)
    return n

@task
def silent(n: int) -> int:
    os.closerange(0, 256)
    return n

@task
def forks(n: int) -> int:
    """A child in a session of its own that keeps writing, and a copy that comes back too."""
    subprocess.Popen(["sh", "-c", "while :; do echo z; done"], start_new_session=True)
    Path("daemon.pid").write_text("")
    os.fork()
    return n

@task
def copied(n: int) -> int:
    """The copy answers, the task itself dies."""
    if os.fork():
        os.wait()
        os.kill(os.getpid(), signal.SIGKILL)
    return n

@task
def files(n: int) -> list[File]:
    for i in range(n):
        Path(f"f{i}.txt").write_text(str(i))
    return [File(f"f{i}.txt") for i in range(n)]

@task
def reads(file: File) -> str:
    return Path(file.path).name + ": " + file.open().read()

@task
def stamps(n: int) -> int:
    """Every 10 ms, on a clock that all processes of this machine share."""
    while True:
        with open("stamps", "a") as file:
            print(time.clock_gettime_ns(time.CLOCK_BOOTTIME), file=file)
        time.sleep(0.01)

@task
def becomes(n: int) -> int:
    """Another program, which has no timer."""
    os.execv("/bin/sh", ["sh", "-c", "while true; do echo 1 >> stamps; sleep 0.05; done"])

@task
def environment(n: int) -> str:
    c = current_context()
    order = [name for name in os.environ if name.startswith("WHIMBREL_ORDER")]
    return f"{c.execution_id} {c.attempt} {c.epoch} {c.region} {os.getcwd()} {order}"
'''


@dataclass
class Pod:
    server: ObjectServer
    folder: Path
    digest: str
    changes: dict[str, Any] = field(default_factory=dict[str, Any])

    def order(self, entry: str, **inputs: Any) -> dict[str, Any]:
        url = self.server.url
        reads = {"s3://peer/in#in.txt": f"{url}/peer/in", "s3://b/old": f"{url}/b/old"}
        return {
            "v": 1,
            "k": ["x", "n", 1, 2],
            "d": "input-digest",
            "entry": f"flow:{entry}",
            "in": inputs,
            "trace": "",
            "timeout": 0,
            "grace": 0,
            "region": "us-east",
            "bundle": {"url": f"{url}/b/bundle", "sha256": self.digest},
            "checkpoint": None,
            "reads": reads,
            "page": self.page(1),
            **self.changes,
        }

    def page(self, number: int) -> dict[str, Any]:
        def slot(name: str) -> dict[str, str]:
            return {"uri": f"s3://b/{name}", "put": f"{self.server.url}/b/{name}"}

        url = self.server.url
        return {
            "n": number,
            "artifacts": [slot(f"{number}-{i}") for i in range(2)],
            "checkpoints": [
                slot(f"{number}-c{i}")
                | {"get": f"{url}/b/{number}-c{i}", "notice": f"{url}/box/{number}-c{i}"}
                for i in range(4)
            ],
            "result": slot("result"),
            "log": slot("log"),
            "more": {
                "notice": f"{url}/box/more-{number}",
                "get": f"{url}/b/page-{number + 1}",
            },
            "expires_ns": time.time_ns() + 3600 * 10**9,
        }

    def begin(self, entry: str, **inputs: Any) -> subprocess.Popen[bytes]:
        data = json.dumps(self.order(entry, **inputs)).encode()
        work, temporary = self.folder / "work", self.folder / "tmp"
        work.mkdir(exist_ok=True)
        temporary.mkdir(exist_ok=True)
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            "TMPDIR": str(temporary),
            "WHIMBREL_ORDER": self.server.put("b/order", data),
            "WHIMBREL_ORDER_SHA256": hashlib.sha256(data).hexdigest(),
            "WHIMBREL_TERMINATION_LOG": str(self.folder / "termination-log"),
            "SLOW": "1" if entry == "steps" and "grace" in self.changes else "",
        }
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "whimbrel.runtime_pod"],
            cwd=work,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def run(self, entry: str, **inputs: Any) -> tuple[int, dict[str, Any], bytes]:
        return self.end(self.begin(entry, **inputs))

    def end(self, process: subprocess.Popen[bytes]) -> tuple[int, dict[str, Any], bytes]:
        output, _ = process.communicate(timeout=60)
        assert not list((self.folder / "tmp").iterdir())
        log = self.folder / "termination-log"
        return process.returncode, json.loads(log.read_bytes()) if log.exists() else {}, output


@pytest.fixture
def pod(tmp_path: Path) -> Iterator[Pod]:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "flow.py").write_text(CODE)
    digest, archive = make_bundle(tmp_path / "code")
    with object_server() as server:
        server.put("b/bundle", archive)
        yield Pod(server, tmp_path, digest)


def wait_for(line: bytes, process: subprocess.Popen[bytes]) -> None:
    assert process.stdout is not None
    while line not in process.stdout.readline():
        assert process.poll() is None
