"""A pod's process 1 as a real process, with an order served over HTTP; what it leaves behind."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
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


def test_a_small_result_is_in_the_termination_message(pod: Pod) -> None:
    status, answer, output = pod.run("double", n=21)
    assert status == 0
    assert (answer["t"], json.loads(answer["value"])) == ("done", {"o0": 42})
    assert (answer["k"], answer["d"]) == (["x", "n", 1, 2], "input-digest")
    assert answer["s"] < answer["e"]
    assert output == b"doubling 21\nto stderr\n"
    assert pod.server.objects["b/log"] == output
    log = answer["stdout"]
    assert (log["uri"], log["bytes"]) == ("s3://b/log", len(output))
    assert log["sha256"] == hashlib.sha256(output).hexdigest()
    assert answer["stderr"] is None


@pytest.mark.parametrize("size", [5000, 100_000])
def test_a_large_result_is_in_the_store(pod: Pod, size: int) -> None:
    """Above the inline limit the document itself is an object, and the answer stays small."""
    status, answer, _ = pod.run("large", n=size)
    assert status == 0
    if size == 5000:
        assert answer["t"] == "stored"
        data = pod.server.objects["b/result"]
        assert answer["sha256"] == hashlib.sha256(data).hexdigest()
        answer = json.loads(data)
        text = answer["value"]
    else:
        assert answer["offloaded"]["uri"] == "s3://b/1-0"
        text = pod.server.objects["b/1-0"].decode()
    assert json.loads(text) == {"o0": "x" * size}


def test_an_error_of_the_users(pod: Pod) -> None:
    status, answer, _ = pod.run("wrong", n=7)
    assert status == 1
    assert (answer["owner"], answer["kind"]) == ("user", "raised")
    assert answer["message"].startswith("ValueError: no 7 (flow.py:")
    assert "runtime" not in answer["tb"]


def test_the_time_limit(pod: Pod) -> None:
    pod.changes["timeout"] = 1.5
    status, answer, output = pod.run("slow", n=1)
    assert status == 1
    assert (answer["owner"], answer["kind"]) == ("user", "timeout")
    assert "1.5 s" in answer["message"]
    assert pod.server.objects["b/log"] == output == b"asleep\n"


def test_asked_to_move_it_saves_and_ends_and_goes_on_elsewhere(pod: Pod) -> None:
    pod.changes["grace"] = 30
    process = pod.begin("steps", n=5)
    wait_for(b"step 2", process)
    process.send_signal(signal.SIGTERM)
    status, answer, _ = pod.end(process)
    assert status == 1
    assert (answer["owner"], answer["kind"]) == ("system", "interrupted")
    assert answer["message"] == "asked to move; saved a checkpoint"
    assert pod.server.objects["b/1-c2"] == b"3"
    assert answer["saved"]["artifact"]["uri"] == "s3://b/1-c2"
    notice = json.loads(pod.server.objects["box/1-c2"])
    assert notice["artifact"] == answer["saved"]["artifact"]
    saved = answer["saved"]["artifact"]
    pod.server.put("b/old", pod.server.objects["b/1-c2"])
    pod.changes = {"checkpoint": {**saved, "uri": "s3://b/old"}}
    status, answer, _ = pod.run("steps", n=5)
    assert json.loads(answer["value"]) == {"o0": "3 to 5"}


def test_asked_to_move_it_does_neither_in_time(pod: Pod) -> None:
    """The log and the answer get out before the machine is taken away."""
    pod.changes["grace"] = 1.0
    process = pod.begin("slow", n=1)
    wait_for(b"asleep", process)
    process.send_signal(signal.SIGTERM)
    status, answer, _ = pod.end(process)
    assert (status, answer["kind"], answer["owner"]) == (1, "interrupted", "system")
    assert "neither" in answer["message"]
    assert pod.server.objects["b/log"] == b"asleep\n"


@pytest.mark.parametrize("content", [None, b"other"])
def test_a_checkpoint_that_is_lost_or_damaged_counts_as_none(
    pod: Pod, content: bytes | None
) -> None:
    if content is not None:
        pod.server.put("b/old", content)
    digest = hashlib.sha256(b"3").hexdigest()
    old = {"uri": "s3://b/old", "sha256": digest, "bytes": 1, "region": "r", "kind": "file"}
    pod.changes["checkpoint"] = old
    _, answer, output = pod.run("steps", n=1)
    assert json.loads(answer["value"]) == {"o0": "0 to 1"}
    assert b"no checkpoint, beginning anew" in output


@pytest.mark.parametrize(
    ("number", "owner", "kind"),
    [(signal.SIGKILL, "system", "worker_lost"), (signal.SIGSEGV, "user", "exited")],
)
def test_a_child_that_is_killed(pod: Pod, number: int, owner: str, kind: str) -> None:
    status, answer, _ = pod.run("killed", n=int(number))
    assert (status, answer["owner"], answer["kind"]) == (1, owner, kind)


@pytest.mark.parametrize(("own", "expected"), [(600, 601), (1000, 1000)])
def test_the_kernel_takes_the_task_first_but_not_before_other_pods(own: int, expected: int) -> None:
    code = (
        "from pathlib import Path; from whimbrel.runtime_pod_child import go_first\n"
        "score = Path('/proc/self/oom_score_adj')\n"
        f"score.write_text('{own}'); go_first(); print(score.read_text())"
    )
    assert int(subprocess.check_output([sys.executable, "-c", code])) == expected


def test_a_flood_of_output(pod: Pod) -> None:
    status, answer, output = pod.run("flood", n=20_000)
    assert (status, answer["t"]) == (0, "done")
    assert len(output) == 20_000 * 1024
    assert answer["stdout"]["bytes"] == 16 * 1024 * 1024


def test_user_code_that_closes_everything(pod: Pod) -> None:
    status, answer, output = pod.run("silent", n=3)
    assert (status, answer["t"], output) == (0, "done", b"")


def test_user_code_that_forks_and_leaves_things_running(pod: Pod) -> None:
    """One answer, and no waiting for a daemon that never stops writing."""
    process = pod.begin("forks", n=3)
    begun = time.monotonic()
    assert process.stdout is not None
    os.set_blocking(process.stdout.fileno(), False)
    while process.poll() is None and time.monotonic() - begun < 60:
        process.stdout.read(1 << 20)
        time.sleep(0.01)
    _kill_those_in(pod.folder / "work")
    answer = json.loads((pod.folder / "termination-log").read_bytes())
    process.stdout.close()
    assert (process.returncode, answer["t"]) == (0, "done")


def test_a_copy_of_the_task_does_not_answer_for_it(pod: Pod) -> None:
    _, answer, _ = pod.run("copied", n=3)
    assert (answer["t"], answer["kind"]) == ("broke", "worker_lost")


def test_more_files_than_slots_of_a_page(pod: Pod) -> None:
    def agent(method: str, path: str) -> int:
        if method == "PUT" and path.startswith("box/more-"):
            number = int(path.removeprefix("box/more-")) + 1
            pod.server.put(f"b/page-{number}", json.dumps(pod.page(number)).encode())
        return 0

    pod.server.fault = agent
    status, answer, _ = pod.run("files", n=5)
    assert status == 0
    if answer["t"] == "stored":
        answer = json.loads(pod.server.objects["b/result"])
    uris = [artifact["uri"] for artifact in answer["artifacts"]]
    assert uris == [
        "s3://b/1-0#f0.txt",
        "s3://b/1-1#f1.txt",
        "s3://b/2-0#f2.txt",
        "s3://b/2-1#f3.txt",
        "s3://b/3-0#f4.txt",
    ]
    assert pod.server.objects["b/3-0"] == b"4"


@pytest.mark.parametrize("right", [True, False])
def test_an_input_by_reference(pod: Pod, right: bool) -> None:
    pod.server.put("peer/in", b"hello" if right else b"jello")
    digest = hashlib.sha256(b"hello").hexdigest()
    uri = "s3://peer/in#in.txt"
    fields = {"uri": uri, "sha256": digest, "bytes": 5, "region": "eu", "kind": "file"}
    status, answer, _ = pod.run("reads", file={"$artifact": fields})
    if right:
        assert json.loads(answer["value"]) == {"o0": "in.txt: hello"}
    else:
        assert (status, answer["owner"], answer["kind"]) == (1, "system", "unreadable_input")
        assert answer["unreadable"] == [uri]


def test_what_a_task_sees_of_itself(pod: Pod) -> None:
    _, answer, _ = pod.run("environment", n=1)
    expected = f"x 1 2 us-east {pod.folder}/work []"
    assert json.loads(answer["value"]) == {"o0": expected}


def _no_bundle(pod: Pod) -> None:
    del pod.server.objects["b/bundle"]


def _other_bundle(pod: Pod) -> None:
    pod.server.put("b/bundle", b"other code")


def _broken_bundle(pod: Pod) -> None:
    pod.server.put("b/bundle", b"no archive")
    pod.digest = hashlib.sha256(b"no archive").hexdigest()


def _newer_order(pod: Pod) -> None:
    pod.changes["v"] = 2


@pytest.mark.parametrize(
    ("spoil", "owner", "kind", "says"),
    [
        (_no_bundle, "system", "order", "NoSuchKey"),
        (_other_bundle, "system", "order", "not the one that was registered"),
        (_broken_bundle, "user", "import", "can't be unpacked"),
        (_newer_order, "system", "order", "an order of version 2"),
    ],
)
def test_what_keeps_it_from_beginning(
    pod: Pod, spoil: Callable[[Pod], None], owner: str, kind: str, says: str
) -> None:
    spoil(pod)
    status, answer, _ = pod.run("double", n=1)
    assert (status, answer["owner"], answer["kind"]) == (1, owner, kind)
    assert says in answer["message"]


def _kill_those_in(folder: Path) -> None:
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                if (process / "cwd").resolve() == folder.resolve():
                    os.kill(int(process.name), signal.SIGKILL)
            except OSError:
                continue
