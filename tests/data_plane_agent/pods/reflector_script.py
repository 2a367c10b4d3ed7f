"""A scripted API server for the reflector, and the objects it tells of."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any

import pytest

from data_plane_agent.pods.api import Page
from data_plane_agent.pods.reflector import (
    Change,
    Reflector,
)


class ScriptEnd(Exception):
    """The scripted server has no more to say: ends `run`."""


def pod(name: str, version: int, *, uid: str = "") -> dict[str, Any]:
    about = {"name": name, "uid": uid or f"uid-{name}", "resourceVersion": str(version)}
    return {"metadata": about}


def bookmark(version: int) -> tuple[str, dict[str, Any]]:
    return "BOOKMARK", {"metadata": {"resourceVersion": str(version)}}


@dataclass
class Scripted:
    """Answers in order: a Page or an error for a list; events and errors for a watch. `calls` are
    what was asked: the page's token, or the version."""

    answers: list[Any]
    now: float = 0.0
    calls: list[tuple[str, str]] = field(default_factory=list)
    slept: list[float] = field(default_factory=list)
    told: list[Change] = field(default_factory=list)

    def _next(self, kind: type) -> Any:
        if not self.answers:
            raise ScriptEnd
        assert isinstance(self.answers[0], kind | Exception), (self.calls, self.answers[0])
        return self.answers.pop(0)

    async def list(
        self, resource: str, *, selector: str = "", more: str = "", limit: int = 500
    ) -> Page:
        self.calls.append(("list", more))
        answer = self._next(Page)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def watch(
        self, resource: str, *, resource_version: str, selector: str = ""
    ) -> AsyncGenerator[tuple[str, dict[str, Any]]]:
        self.calls.append(("watch", resource_version))
        answer = self._next(list)
        for step in [answer] if isinstance(answer, Exception) else answer:
            match step:
                case Exception():
                    raise step
                case float():
                    self.now += step
                case _:
                    yield step

    def reflector(self, resource: str = "pods") -> Reflector:
        async def sleep(seconds: float) -> None:
            self.slept.append(seconds)
            self.now += seconds

        return Reflector(
            self,
            resource,
            on_change=self.told.append,
            clock=lambda: self.now,
            sleep=sleep,
            chance=lambda: 1.0,
        )

    async def run(self) -> Reflector:
        reflector = self.reflector()
        with pytest.raises(ScriptEnd):
            await reflector.run()
        return reflector


def versions(reflector: Reflector) -> dict[str, str]:
    return {name: item["metadata"]["resourceVersion"] for name, item in reflector.items.items()}
