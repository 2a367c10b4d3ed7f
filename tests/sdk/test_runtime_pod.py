"""A pod's process 1 as a real process, with an order served over HTTP; what it leaves behind."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.sdk.pod_process import Pod, pod, wait_for

__all__ = ["pod"]


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
    pod.changes["v"] = 3


@pytest.mark.parametrize(
    ("spoil", "owner", "kind", "says"),
    [
        (_no_bundle, "system", "order", "NoSuchKey"),
        (_other_bundle, "system", "order", "not the one that was registered"),
        (_broken_bundle, "user", "import", "can't be unpacked"),
        (_newer_order, "system", "order", "an order of version 3"),
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
