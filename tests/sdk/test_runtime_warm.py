"""A warm pod's process 1 as a real process, with a door that the test holds: what is said at it."""

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.sdk.warm_process import Pod, cold, pod

__all__ = ["cold", "pod"]


def test_tasks_run_one_after_another_in_one_process(pod: Pod) -> None:
    pod.say(*(pod.task(seq, "counts") for seq in (1, 2, 3)))
    values = [pod.value(seq) for seq in (1, 2, 3)]
    assert [value[0] for value in values] == [1, 2, 3]
    assert len({value[1] for value in values}) == 1
    assert pod.process is not None
    assert values[0][2] == pod.process.pid
    assert [message["seq"] for message in pod.inbox if message["t"] == "begin"] == [1, 2, 3]


def test_an_answer_says_whose_it_is_and_when(pod: Pod) -> None:
    before = time.time_ns()
    pod.say(pod.task(5, "double", n=21))
    answer = pod.hear("done")
    assert json.loads(answer["value"]) == {"o0": 42}
    assert (answer["seq"], answer["k"], answer["d"]) == (5, ["p/d/x", "n5", 1, 2], "digest 5")
    assert before < answer["s"] < answer["e"] < time.time_ns()
    assert (answer["stdout"], answer["stderr"]) == (None, None)
    assert pod.server.log == [("GET", "b/bundle")]


def test_output_of_each_task_is_stored_apart_and_only_when_there_is_some(pod: Pod) -> None:
    pod.say(pod.task(1, "talks", n=1), pod.task(2, "double", n=2), pod.task(3, "talks", n=3))
    for seq in (1, 3):
        assert pod.hear("more")["seq"] == seq
        pod.say(pod.page(seq, 1))
        log = pod.hear("done", seq)["stdout"]
        text = f"talking of {seq}\nand complaining\n".encode()
        assert (log["uri"], log["bytes"]) == (f"s3://b/{seq}/log", len(text))
        assert pod.server.objects[f"b/{seq}/log"] == text
    assert pod.hear("done", 2)["stdout"] is None


def test_slots_are_asked_for_when_they_are_needed(pod: Pod) -> None:
    pod.say(pod.task(1, "files", n=3))
    for number in (1, 2):
        assert pod.hear("more")["n"] == number
        pod.say(pod.page(1, number))
    answer = pod.hear("done")
    uris = [artifact["uri"] for artifact in answer["artifacts"]]
    assert [uri.partition("#")[0] for uri in uris] == [
        "s3://b/1/1-0",
        "s3://b/1/1-1",
        "s3://b/1/2-0",
    ]
    assert pod.server.objects["b/1/2-0"] == b"2"


def test_a_task_finds_nothing_of_the_last_ones_files(pod: Pod) -> None:
    folder = str(pod.folder / "tmp")
    pod.say(pod.task(1, "litters", folder=folder), pod.task(2, "litters", folder=folder))
    assert [pod.value(1), pod.value(2)] == [[], []]


def test_user_code_finds_neither_the_token_nor_the_agents_socket(pod: Pod) -> None:
    pod.say(pod.task(1, "environment"))
    # 0, 1, 2, its end of the pair, and the one that reads the folder.
    assert pod.value(1) == "p/d/x 1 2 us-east [] 5"


@pytest.mark.parametrize(
    ("number", "owner", "kind"),
    [(signal.SIGSEGV, "user", "exited"), (signal.SIGKILL, "system", "worker_lost")],
)
def test_a_crash_breaks_its_own_task_only(pod: Pod, number: int, owner: str, kind: str) -> None:
    pod.say(pod.task(1, "counts"), pod.task(2, "crash", n=number), pod.task(3, "counts"))
    pod.hear("more")
    pod.say(pod.page(2, 1))
    answer = pod.hear("broke")
    assert (answer["seq"], answer["owner"], answer["kind"]) == (2, owner, kind)
    assert pod.server.objects["b/2/log"] == b"about to\n"
    first, third = pod.value(1), pod.value(3)
    assert third[0] == 1
    assert first[1] != third[1]


def test_code_that_breaks_at_import_breaks_a_task_not_the_pod(pod: Pod) -> None:
    pod.say(pod.task(1, "broken:any"), pod.task(2, "gone:any"), pod.task(3, "double", n=1))
    assert pod.hear("broke", 1)["message"] == "exited with status 9 without a result"
    assert pod.hear("broke", 2)["kind"] == "import"
    assert pod.value(3) == 2


def test_user_code_that_closes_everything_breaks_its_own_task(pod: Pod) -> None:
    pod.say(pod.task(1, "closes"), pod.task(2, "double", n=1))
    assert pod.hear("broke", 1)["kind"] == "exited"
    assert pod.value(2) == 2


def test_the_time_limit(pod: Pod) -> None:
    mark = str(pod.folder / "never")
    pod.say(pod.task(1, "until", timeout=0.5, mark=mark), pod.task(2, "double", n=1))
    answer = pod.hear("broke")
    assert (answer["seq"], answer["owner"], answer["kind"]) == (1, "user", "timeout")
    assert "0.5 s" in answer["message"]
    assert pod.value(2) == 2


def test_cancel_of_what_runs_and_of_what_waits(pod: Pod) -> None:
    pod.say(pod.task(1, "slow", mark=str(pod.folder / "mark")), pod.task(2, "double", n=1))
    child = int(pod.appears("mark"))
    pod.say({"t": "cancel", "seq": 2}, {"t": "cancel", "seq": 1}, pod.task(3, "double", n=3))
    assert [pod.hear("given")["seqs"], pod.hear("given")["seqs"]] == [[2], [1]]
    assert pod.value(3) == 6
    assert not Path(f"/proc/{child}").exists()
    assert not [message for message in pod.inbox if message["t"] in ("done", "broke")]


def test_what_has_not_begun_is_given_back(pod: Pod) -> None:
    pod.say(pod.task(1, "until", mark=str(pod.folder / "go")))
    pod.hear("begin", 1)
    pod.say(*(pod.task(seq, "double", n=seq) for seq in (2, 3)), {"t": "back", "seqs": [1, 2, 3]})
    assert pod.hear("given")["seqs"] == [2, 3]
    (pod.folder / "go").touch()
    assert pod.value(1) == 7
    assert not [message for message in pod.inbox if message["t"] == "done"]


def test_output_can_be_read_while_the_task_runs(pod: Pod) -> None:
    pod.say(pod.task(1, "slow", mark=str(pod.folder / "mark")))
    pod.appears("mark")
    pod.say({"t": "read", "id": 5, "seq": 1, "offset": 2, "limit": 100})
    assert pod.hear("text") == {"t": "text", "id": 5, "data": "bGVlcAo="}


def test_the_agent_is_away_and_finds_what_runs_and_what_ended(pod: Pod) -> None:
    """An answer is kept until the agent says that it has it; what was not begun is dropped."""
    pod.say(pod.task(1, "double", n=1), pod.task(2, "until", mark=str(pod.folder / "go")))
    pod.hear("begin", 2)
    pod.say(pod.task(3, "double", n=3), {"t": "read", "id": 1, "seq": 2, "offset": 0, "limit": 0})
    pod.hear("text")
    pod.hang_up()
    hello = pod.accept()
    assert (hello["ready"], hello["last"]) == (True, 3)
    assert hello["kept"] == [{"seq": 1, "k": ["p/d/x", "n1", 1, 2], "d": "digest 1"}]
    assert (hello["running"]["seq"], hello["running"]["d"]) == (2, "digest 2")
    pod.welcome()
    assert pod.value(1) == 2
    pod.say({"ack": [1]})
    (pod.folder / "go").touch()
    assert pod.value(2) == 7
    pod.hang_up()
    hello = pod.accept()
    assert [kept["seq"] for kept in hello["kept"]] == [2]
    assert hello["running"] is None
    pod.welcome()
    assert pod.value(2) == 7
    pod.say({"ack": [2]}, pod.task(4, "double", n=4))
    assert pod.value(4) == 8
    assert not pod.inbox or all(message["t"] == "begin" for message in pod.inbox)


def test_output_that_ended_while_the_agent_was_away_is_stored_later(pod: Pod) -> None:
    pod.say(pod.task(1, "talks", n=1))
    pod.hear("more")
    pod.hang_up()
    assert pod.accept()["running"]["seq"] == 1
    pod.welcome()
    assert pod.hear("more")["seq"] == 1
    pod.say(pod.page(1, 1))
    assert pod.hear("done")["stdout"]["uri"] == "s3://b/1/log"


def test_asked_to_move_it_saves_gives_back_and_ends(pod: Pod) -> None:
    assert pod.process is not None
    pod.say(pod.task(1, "steps", mark=str(pod.folder / "mark")), pod.task(2, "double", n=2))
    pod.appears("mark")
    pod.process.send_signal(signal.SIGTERM)
    pod.hear("leaving")
    assert pod.hear("given")["seqs"] == [2]
    pod.hear("more")
    pod.say(pod.page(1, 1))
    saved = pod.hear("saved")
    assert (saved["seq"], saved["artifact"]["uri"]) == (1, "s3://b/1/1-c0")
    answer = pod.hear("broke")
    assert (answer["owner"], answer["kind"]) == ("system", "interrupted")
    assert answer["saved"] == saved
    pod.say(pod.task(3, "double", n=3))
    assert pod.hear("given")["seqs"] == [3]
    pod.say({"ack": [1]})
    assert pod.process.wait(30) == 0
    assert not list((pod.folder / "work").iterdir())


def test_asked_to_move_what_does_not_listen_is_ended_within_the_grace(cold: Pod) -> None:
    cold.grace = 3.0
    cold.start()
    cold.welcome()
    cold.hear("ready")
    assert cold.process is not None
    cold.say(cold.task(1, "slow", mark=str(cold.folder / "mark")))
    cold.appears("mark")
    cold.process.send_signal(signal.SIGTERM)
    cold.hear("more")
    cold.say(cold.page(1, 1))
    answer = cold.hear("broke")
    assert (answer["owner"], answer["kind"]) == ("system", "interrupted")
    assert "3 s" in answer["message"]
    assert cold.process.wait(30) == 0  # within the grace, though nobody acknowledges it


def test_idle_and_asked_to_leave_it_ends_at_once(pod: Pod) -> None:
    assert pod.process is not None
    pod.process.send_signal(signal.SIGTERM)
    assert pod.process.wait(30) == 0


def test_without_an_agent_it_ends_after_a_while(cold: Pod) -> None:
    """Also one that is refused: a connection is no welcome."""
    cold.orphan = 1.0
    cold.start()
    cold.hang_up()
    assert cold.process is not None
    assert cold.process.wait(30) == 0


def damaged(pod: Pod) -> None:
    pod.code["sha256"] = "0" * 64


def missing(pod: Pod) -> None:
    pod.code["url"] += "-not"


@pytest.mark.parametrize("fault", [damaged, missing])
def test_without_its_code_it_says_so_and_ends(cold: Pod, fault: Callable[[Pod], None]) -> None:
    fault(cold)
    cold.start()
    cold.welcome()
    unfit = cold.hear("unfit")
    assert unfit["owner"] == "system"
    assert "the code" in unfit["message"]
    assert cold.process is not None
    assert cold.process.wait(30) == 0
