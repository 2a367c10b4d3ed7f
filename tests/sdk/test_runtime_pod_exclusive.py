"""Exclusive attempts in a pod: nothing starts without an agent's answer, and the last answer ends
it, counted from before its question."""

import json
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from whimbrel.runtime_order import Page, Pages
from whimbrel.runtime_pod_http import Http
from whimbrel.runtime_pod_renewals import FIRST_SECONDS, Deadline, Renewals

from tests.object_server import ObjectServer, object_server
from tests.sdk.pod_process import Pod, pod

__all__ = ["pod"]
SECOND = 1_000_000_000


def slots(server: ObjectServer) -> list[dict[str, str]]:
    url = server.url
    return [{"put": f"{url}/box/ask-{i}", "get": f"{url}/b/renewal"} for i in range(4)]


@dataclass
class Agent:
    """Answers what is asked while it `may`, with so much left, after a while."""

    server: ObjectServer
    left_ns: int
    after: float = 0.0
    may: bool = True
    asked_ns: list[int] = field(default_factory=list[int])
    left: list[threading.Timer] = field(default_factory=list[threading.Timer])

    def __call__(self, method: str, path: str) -> int:
        """As a fault of the server, which has not taken the question yet at this moment."""
        if method == "PUT" and path.startswith("box/ask-") and self.may:
            self.asked_ns.append(time.clock_gettime_ns(time.CLOCK_BOOTTIME))
            timer = threading.Timer(0.02 + self.after, self.answer, (path,))
            self.left.append(timer)
            timer.start()
        return 0

    def answer(self, path: str) -> None:
        question = json.loads(self.server.objects[path])
        answer = {"nonce": question["nonce"], "left_ns": self.left_ns}
        self.server.put("b/renewal", json.dumps(answer).encode())

    def end(self) -> None:
        for timer in self.left:
            timer.join()


def exclusive(pod: Pod) -> None:
    pod.changes |= {"v": 2, "page": pod.page(1) | {"renewals": slots(pod.server)}}


def stamps(pod: Pod) -> list[int]:
    return [int(line) for line in (pod.folder / "work" / "stamps").read_text().split()]


def until(met: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not met():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_renewed_it_runs_to_its_end(pod: Pod) -> None:
    exclusive(pod)
    pod.server.fault = agent = Agent(pod.server, 3 * SECOND)
    status, answer, _ = pod.run("double", n=21)
    agent.end()
    assert (status, json.loads(answer["value"])) == (0, {"o0": 42})


def test_never_answered_it_starts_nothing(pod: Pod) -> None:
    exclusive(pod)
    status, answer, output = pod.run("double", n=21)
    assert (status, answer["owner"], answer["kind"]) == (1, "system", "no_renewal")
    assert "not started" in answer["message"]
    assert output == b""
    assert answer["stdout"] is None


def test_the_kernel_ends_it_at_its_last_deadline_also_when_process_1_stands_still(
    pod: Pod,
) -> None:
    """The answers come late; they count from the question all the same."""
    exclusive(pod)
    pod.server.fault = agent = Agent(pod.server, 2 * SECOND, after=0.3)
    process = pod.begin("stamps", n=1)
    until(lambda: len(agent.asked_ns) >= 4)
    process.send_signal(signal.SIGSTOP)
    agent.end()
    last = agent.asked_ns[-1] + 2 * SECOND
    until(lambda: time.clock_gettime_ns(time.CLOCK_BOOTTIME) > last)
    written = stamps(pod)
    process.send_signal(signal.SIGCONT)
    status, answer, _ = pod.end(process)
    assert (status, answer["owner"], answer["kind"]) == (1, "system", "no_renewal")
    assert stamps(pod) == written
    assert agent.asked_ns[0] + 2 * SECOND < written[-1] < last  # it was pushed out


def test_what_became_another_program_is_ended_by_process_1(pod: Pod) -> None:
    """An exec takes the kernel's timer away."""
    exclusive(pod)
    pod.server.fault = agent = Agent(pod.server, 2 * SECOND)
    process = pod.begin("becomes", n=1)
    until(lambda: (pod.folder / "work" / "stamps").exists())
    agent.may = False
    status, answer, _ = pod.end(process)
    agent.end()
    assert (status, answer["owner"], answer["kind"]) == (1, "system", "no_renewal")
    over = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - agent.asked_ns[-1]
    assert over < 10 * SECOND


# -- questions and answers, without a process -----------------------------------------------------


@dataclass
class Clock:
    ns: int = 100 * SECOND

    def sleep(self, seconds: float) -> None:
        self.ns += int(seconds * 1e9)


class Asking:
    def __init__(self, server: ObjectServer) -> None:
        self.server, self.clock, self.deadline = server, Clock(), Deadline()
        nothing = {"uri": "", "put": ""}
        fields: dict[str, Any] = {
            "n": 1,
            "artifacts": [],
            "checkpoints": [],
            "result": nothing,
            "log": nothing,
            "more": {"notice": "", "get": ""},
            "expires_ns": 1,
            "renewals": slots(server),
        }
        self.count = 0
        self.renewals = Renewals(
            Pages(Page.of(fields, now_ns=0), Http()),
            self.deadline,
            now_ns=lambda: self.clock.ns,
            sleep=self.clock.sleep,
            nonce=self._nonce,
        )

    def _nonce(self) -> str:
        self.count += 1
        return f"nonce {self.count}"

    def answers(self, nonce: str, left_ns: Any) -> None:
        answer = json.dumps({"nonce": nonce, "left_ns": left_ns}).encode()
        self.server.put("b/renewal", answer)


@pytest.fixture
def asking(tmp_path: Path) -> Any:
    with object_server() as server:
        yield Asking(server)


def test_what_is_left_counts_from_before_the_question(asking: Asking) -> None:
    asking.answers("nonce 1", 10 * SECOND)
    asked = asking.clock.ns
    assert asking.renewals.ask()
    assert asking.deadline.newest() == asked + 99 * SECOND // 10
    (question,) = [json.loads(asking.server.objects[k]) for k in asking.server.keys("box/")]
    assert question == {"t": "renew", "nonce": "nonce 1", "n": 1}


def test_an_answer_to_an_earlier_question_counts_from_that_one(asking: Asking) -> None:
    asked = asking.clock.ns
    assert not asking.renewals.ask()
    asking.answers("nonce 1", 10 * SECOND)
    assert asking.renewals.ask()
    assert asking.deadline.newest() == asked + 99 * SECOND // 10


def test_an_answer_is_good_once(asking: Asking) -> None:
    asking.answers("nonce 1", 10 * SECOND)
    assert asking.renewals.ask()
    before = asking.deadline.newest()
    assert not asking.renewals.ask()
    assert asking.deadline.newest() == before


@pytest.mark.parametrize("left", [0, -1, "much", None, 500_000_000])
def test_no_answer_that_is_live(asking: Asking, left: Any) -> None:
    """The last one is over by the time it is read: the question was asked long before."""
    assert not asking.renewals.ask()
    asking.answers("nonce 1", left)
    assert not asking.renewals.ask()
    assert asking.deadline.newest() == 0


def test_of_somebody_else_or_earlier_than_the_last_it_is_ignored(asking: Asking) -> None:
    asking.answers("nonce 7", 10 * SECOND)
    assert not asking.renewals.ask()
    asking.answers("nonce 2", 10 * SECOND)
    assert asking.renewals.ask()
    before = asking.deadline.newest()
    asking.answers("nonce 1", 5 * SECOND)
    assert not asking.renewals.ask()
    assert asking.deadline.newest() == before


def test_questions_lie_in_different_places(asking: Asking) -> None:
    for _ in range(4):
        asking.renewals.ask()
    assert len(asking.server.keys("box/")) == 4


def test_nobody_answers_for_so_long(asking: Asking) -> None:
    began = asking.clock.ns
    assert not asking.renewals.first()
    waited = (asking.clock.ns - began) / SECOND
    assert FIRST_SECONDS <= waited < FIRST_SECONDS + 2


def test_a_store_that_is_away_is_asked_again(asking: Asking) -> None:
    asking.server.fault = lambda method, _path: 500 if method == "PUT" else 0
    assert not asking.renewals.first()
    asking.server.fault = lambda _method, _path: 0
    asking.answers(f"nonce {asking.count + 1}", 10 * SECOND)
    assert asking.renewals.first()
