"""The reflector over a scripted API server: every fault a connection can have, and no sleeping."""

import contextlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_plane_agent.pod_api import ApiDown, Denied, Expired, Page
from data_plane_agent.reflector import (
    LONGEST_DELAY_SECONDS,
    RESYNC_SECONDS,
    STEADY_SECONDS,
    Change,
    Gone,
    Listed,
    Reflector,
    Seen,
)

pytestmark = pytest.mark.anyio


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


async def test_lists_by_pages_then_watches_from_the_lists_version() -> None:
    server = Scripted(
        [
            Page([pod("a", 1)], "9", more="p2"),
            Page([pod("b", 2)], "9"),
            [("ADDED", pod("c", 10)), ("MODIFIED", pod("a", 11)), ("DELETED", pod("b", 12))],
        ]
    )
    reflector = await server.run()
    assert server.calls == [("list", ""), ("list", "p2"), ("watch", "9"), ("watch", "12")]
    assert versions(reflector) == {"a": "11", "c": "10"}
    assert server.told == [
        Seen(pod("a", 1)),
        Seen(pod("b", 2)),
        Listed(),
        Seen(pod("c", 10)),
        Seen(pod("a", 11)),
        Gone(pod("b", 12)),
    ]
    assert reflector.synced.is_set()
    assert reflector.ill == ""


async def test_a_page_that_expires_shows_nothing_and_the_list_begins_anew() -> None:
    server = Scripted(
        [
            Page([pod("a", 1), pod("x", 1)], "9", more="p2"),
            Expired("the page is too old", status=410),
            Page([pod("a", 1)], "20"),
        ]
    )
    reflector = await server.run()
    assert server.calls == [("list", ""), ("list", "p2"), ("list", ""), ("watch", "20")]
    assert server.told == [Seen(pod("a", 1)), Listed()]
    assert versions(reflector) == {"a": "1"}
    assert server.slept == []


@pytest.mark.parametrize("how", ["http status", "error event"])
async def test_an_expired_version_means_a_new_list_and_what_vanished_is_told(how: str) -> None:
    gone = Expired("too old resource version", status=410)
    server = Scripted(
        [
            Page([pod("a", 1), pod("b", 2)], "9"),
            gone if how == "http status" else [bookmark(9), gone],
            Page([pod("b", 2), pod("c", 30)], "31"),
        ]
    )
    reflector = await server.run()
    assert server.told[3:] == [Gone(pod("a", 1)), Seen(pod("c", 30)), Listed()]
    assert server.calls[-2:] == [("list", ""), ("watch", "31")]
    assert server.slept == []  # one 410 is no illness
    assert reflector.ill == ""


async def test_versions_that_expire_at_once_again_and_again_are_slowed_down() -> None:
    gone = Expired("too old resource version")
    server = Scripted([Page([], "1"), [bookmark(1), gone]] * 4)
    await server.run()
    assert server.slept == [1.0, 2.0, 4.0]


async def test_a_broken_watch_goes_on_from_the_last_whole_event() -> None:
    server = Scripted(
        [
            Page([], "9"),
            [("ADDED", pod("a", 10)), ApiDown("broke off in the middle of an event")],
            [("ADDED", pod("b", 11))],
        ]
    )
    reflector = await server.run()
    assert [call for call in server.calls if call[0] == "watch"][:2] == [
        ("watch", "9"),
        ("watch", "10"),
    ]
    assert versions(reflector) == {"a": "10", "b": "11"}


async def test_bookmarks_move_the_version_on() -> None:
    server = Scripted([Page([], "9"), [bookmark(9), bookmark(50)], [bookmark(50), 60.0]])
    await server.run()
    assert server.calls[-2:] == [("watch", "50"), ("watch", "50")]
    assert server.told == [Listed()]
    assert server.slept == []  # a quiet watch that held is no failure


async def test_a_half_open_watch_is_left_and_another_begun() -> None:
    server = Scripted(
        [
            Page([], "9"),
            [bookmark(9), 260.0, ApiDown("no answer from the API server in time")],
            [bookmark(9), ("ADDED", pod("a", 10))],
        ]
    )
    reflector = await server.run()
    assert versions(reflector) == {"a": "10"}
    assert server.slept == [0.5]
    assert server.calls.count(("list", "")) == 1


async def test_too_many_requests_waits_as_long_as_the_server_wants() -> None:
    server = Scripted([ApiDown("slow down", status=429, retry_after=7.0), Page([], "9")])
    reflector = await server.run()
    assert server.slept == [7.5]
    assert reflector.synced.is_set()


async def test_delays_grow_up_to_a_limit_and_the_list_is_asked_for_anew() -> None:
    server = Scripted([Page([], "9")] + [ApiDown("connection refused")] * 9)
    reflector = await server.run()
    assert server.slept == [0.5, 1, 2, 4, 8] + [LONGEST_DELAY_SECONDS] * 4
    assert [what for what, _ in server.calls] == ["list"] + ["watch"] * 4 + ["list"] * 6
    assert reflector.ill == "connection refused"


async def test_a_watch_that_held_ends_the_row_of_failures() -> None:
    cut = ApiDown("cut")
    held = [bookmark(9), STEADY_SECONDS, cut]
    server = Scripted([Page([], "9"), cut, cut, cut, held, cut])
    await server.run()
    assert server.slept == [0.5, 1, 2, 0.5, 1]


async def test_a_watch_that_is_ended_at_once_is_a_failure() -> None:
    server = Scripted([Page([], "9"), [bookmark(9)], [bookmark(9)]])
    await server.run()
    assert server.slept == [0.5, 1.0]


async def test_rights_taken_away_do_not_end_it() -> None:
    server = Scripted([Denied("pods is forbidden", status=403), Page([], "9")])
    reflector = await server.run()
    assert reflector.synced.is_set()
    assert reflector.ill == ""


async def test_duplicates_and_deletes_of_an_older_pod_change_nothing() -> None:
    new = pod("a", 12, uid="second")
    server = Scripted(
        [
            Page([pod("a", 9)], "9"),
            [
                ("MODIFIED", pod("a", 9)),
                ("ADDED", new),
                ("ADDED", new),
                ("DELETED", pod("a", 11)),
                ("DELETED", pod("zz", 11)),
                ("NEWS", {}),
            ],
        ]
    )
    reflector = await server.run()
    assert server.told == [Seen(pod("a", 9)), Listed(), Gone(pod("a", 9)), Seen(new)]
    assert versions(reflector) == {"a": "12"}


async def test_lists_anew_after_ten_quiet_minutes() -> None:
    server = Scripted(
        [
            Page([pod("a", 1)], "9"),
            [bookmark(9), RESYNC_SECONDS / 2],
            [bookmark(9), RESYNC_SECONDS / 2],
            Page([], "40"),
        ]
    )
    await server.run()
    assert [what for what, _ in server.calls] == ["list", "watch", "watch", "list", "watch"]
    assert server.told[-2:] == [Gone(pod("a", 1)), Listed()]


async def test_age_grows_while_the_server_is_silent() -> None:
    server = Scripted([Page([], "9"), [bookmark(9), 33.0, ApiDown("cut")]])
    reflector = server.reflector()
    assert reflector.stale_seconds() == float("inf")
    with pytest.raises(ScriptEnd):
        await reflector.run()
    assert reflector.stale_seconds() == 33.5
    assert reflector.ill == "cut"


async def test_a_watch_is_closed_when_the_run_ends() -> None:
    closed: list[bool] = []

    class Endless(Scripted):
        async def watch(self, *_: object, **__: object) -> AsyncGenerator[Any]:
            try:
                while True:
                    yield "ADDED", pod("a", 10)
            finally:
                closed.append(True)

    def on_change(change: Change) -> None:
        if isinstance(change, Seen):
            raise ScriptEnd

    reflector = Reflector(Endless([Page([], "9")]), "pods", on_change=on_change)
    with pytest.raises(ScriptEnd):
        await reflector.run()
    assert closed == [True]


# -- whatever happens, in whatever order ----------------------------------------------------------

FAULTS = ["down", "expired", "expired-late", "truncated", "half-open", "busy", "replay", "end"]


class Server:
    """Real history, a version a change; faults and writes by a script, then none and no more."""

    def __init__(self, script: list[tuple[str, int]]) -> None:
        self.script = script
        self.history: list[tuple[str, dict[str, Any]]] = []
        self.pods: dict[str, dict[str, Any]] = {}
        self.snapshots: dict[str, list[dict[str, Any]]] = {}

    @property
    def version(self) -> int:
        return len(self.history)

    def write(self, choice: int) -> None:
        """Names a..d come, change, go and come again."""
        name = "abcd"[choice % 4]
        version = self.version + 1
        held = self.pods.get(name)
        if held is None:
            kind, item = "ADDED", pod(name, version, uid=f"uid-{version}")
        else:
            kind = "DELETED" if choice % 3 == 0 else "MODIFIED"
            item = pod(name, version, uid=held["metadata"]["uid"])
        self.history.append((kind, item))
        if kind == "DELETED":
            del self.pods[name]
        else:
            self.pods[name] = item

    def _fault(self) -> str:
        if not self.script:
            return ""
        fault, writes = self.script.pop(0)
        for choice in range(writes):
            self.write(writes * 7 + choice * 5 + len(self.script))
        return fault

    async def list(
        self, resource: str, *, selector: str = "", more: str = "", limit: int = 500
    ) -> Page:
        fault = self._fault()
        if fault in ("down", "truncated", "half-open"):
            raise ApiDown(fault)
        if fault == "busy":
            raise ApiDown(fault, status=429, retry_after=1)
        if more and fault.startswith("expired"):
            raise Expired(fault)
        version, start = more.split("/") if more else (str(self.version), "0")
        items = self.snapshots.setdefault(version, sorted(self.pods.values(), key=str))
        end = int(start) + 2
        return Page(
            items[int(start) : end], version, more=f"{version}/{end}" if end < len(items) else ""
        )

    async def watch(
        self, resource: str, *, resource_version: str, selector: str = ""
    ) -> AsyncGenerator[tuple[str, dict[str, Any]]]:
        fault = self._fault()
        at = int(resource_version)
        match fault:
            case "down":
                raise ApiDown(fault)
            case "busy":
                raise ApiDown(fault, status=429, retry_after=1)
            case "expired":
                raise Expired(fault)
        yield bookmark(at)
        if fault == "replay":
            at = max(0, at - 2)
        for index in range(at, self.version):
            if fault in ("truncated", "half-open", "expired-late") and index - at >= 1:
                raise (Expired if fault == "expired-late" else ApiDown)(fault)
            yield self.history[index]
        if fault == "expired-late":
            raise Expired(fault)
        if fault in ("truncated", "half-open"):
            raise ApiDown(fault)
        yield bookmark(self.version)
        if not self.script:
            raise ScriptEnd


@settings(max_examples=150)
@given(st.lists(st.tuples(st.sampled_from(FAULTS), st.integers(0, 6)), max_size=25))
async def test_ends_equal_to_the_server_whatever_happens(script: list[tuple[str, int]]) -> None:
    server = Server(script)
    mirror: dict[str, Any] = {}
    lists: list[dict[str, Any]] = []

    def follow(change: Change) -> None:
        match change:
            case Seen(item):
                name = item["metadata"]["name"]
                held = mirror.get(name)
                assert held is None or held["metadata"]["uid"] == item["metadata"]["uid"]
                mirror[name] = item
            case Gone(item):
                del mirror[item["metadata"]["name"]]
            case Listed():
                lists.append(dict(mirror))

    async def no_sleep(_: float) -> None: ...

    reflector = Reflector(server, "pods", on_change=follow, sleep=no_sleep, chance=lambda: 0.5)
    with contextlib.suppress(ScriptEnd):
        await reflector.run()
    assert dict(reflector.items) == server.pods
    assert mirror == server.pods  # who only hears the changes knows the same
    assert lists
