"""One agent's stream as the router sees it: what is still to be sent, and questions in flight.

Made by `sessions.py` at Hello; filled from etcd's watch; drained by the gateway's door. A slow
agent costs no memory: a second change of the same execution replaces the first.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from whimbrel.errors import Unreachable
from whimbrel.spec import Assignment

from router.held import Difference

PAGE = 500
"""Assignments a message. Too many block the stream for a question, too few cost a message each."""


@dataclass(frozen=True, slots=True)
class All:
    """Everything assigned to the cluster."""

    assignments: Sequence[Assignment]


@dataclass(frozen=True, slots=True)
class Changed:
    assignments: Sequence[Assignment]


@dataclass(frozen=True, slots=True)
class Removed:
    assignments: Sequence[Assignment]


@dataclass(frozen=True, slots=True)
class Asked:
    """The question as it came, opaque here."""

    question: Any


@dataclass(frozen=True, slots=True)
class Bye:
    """superseded | session_over | shutting_down"""

    reason: str


Outgoing = All | Changed | Removed | Asked | Bye


class Stream:
    """`everything` answers the cluster's assignments, None while they can't be read."""

    def __init__(
        self,
        id: str,
        *,
        cluster: str,
        session: str,
        everything: Callable[[], Sequence[Assignment] | None],
    ) -> None:
        self.id = id
        self.cluster = cluster
        self.session = session
        self.difference: Difference | None = None
        self._everything = everything
        self._all_due = True
        self._pending: dict[str, tuple[bool, Assignment]] = {}
        self._questions: list[Asked] = []
        self._answers: dict[str, asyncio.Future[Any]] = {}
        self._closing: str | None = None
        self._wake = asyncio.Event()
        self._wake.set()

    def changed(self, assignment: Assignment) -> None:
        self._pending[assignment.execution] = (True, assignment)
        self._wake.set()

    def removed(self, assignment: Assignment) -> None:
        self._pending[assignment.execution] = (False, assignment)
        self._wake.set()

    def refresh(self) -> None:
        """Say everything again, and take nothing away: the view was read anew, or the agent holds
        something else (`difference`)."""
        self._all_due = True
        self._wake.set()

    def close(self, reason: str) -> None:
        """ "" = end without a word (the agent went on with this session on another stream)."""
        if self._closing is None:
            self._closing = reason
            self._wake.set()
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(Unreachable(f"the stream of {self.cluster} ended"))
        self._answers.clear()

    @property
    def closed(self) -> bool:
        return self._closing is not None

    async def ask(self, id: str, question: Any, *, timeout: float) -> Any:
        """The agent's answer. Raises Unreachable when there is none in time."""
        if self.closed:
            raise Unreachable(f"the agent of {self.cluster} is not connected")
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._answers[id] = answer
        self._questions.append(Asked(question))
        self._wake.set()
        try:
            async with asyncio.timeout(timeout):
                return await answer
        except TimeoutError as cause:
            raise Unreachable(f"{self.cluster} did not answer within {timeout:g} s") from cause
        finally:
            self._answers.pop(id, None)

    def answered(self, id: str, answer: Any) -> None:
        """A late or unknown answer is dropped: whoever asked has gone."""
        waiting = self._answers.get(id)
        if waiting is not None and not waiting.done():
            waiting.set_result(answer)

    async def messages(self) -> AsyncIterator[Outgoing]:
        while True:
            await self._wake.wait()
            self._wake.clear()
            if self._all_due and (everything := self._everything()) is not None:
                self._all_due = False
                self._pending.clear()
                yield All(everything)
            pending, self._pending = self._pending, {}
            live = [one for present, one in pending.values() if present]
            gone = [one for present, one in pending.values() if not present]
            for start in range(0, len(live), PAGE):
                yield Changed(live[start : start + PAGE])
            for start in range(0, len(gone), PAGE):
                yield Removed(gone[start : start + PAGE])
            questions, self._questions = self._questions, []
            for question in questions:
                yield question
            if self._closing is not None:
                if self._closing:
                    yield Bye(self._closing)
                return
