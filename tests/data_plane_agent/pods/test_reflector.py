"""The reflector over a scripted API server: every fault a connection can have, and no sleeping."""

from collections.abc import AsyncGenerator
from typing import Any

import pytest

from data_plane_agent.pods.api import ApiDown, Denied, Expired, Page
from data_plane_agent.pods.reflector import (
    LONGEST_DELAY_SECONDS,
    RESYNC_SECONDS,
    STEADY_SECONDS,
    Change,
    Gone,
    Listed,
    Reflector,
    Seen,
)
from tests.data_plane_agent.pods.reflector_script import (
    Scripted,
    ScriptEnd,
    bookmark,
    pod,
    versions,
)

pytestmark = pytest.mark.anyio


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


@pytest.mark.fault(35)
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


@pytest.mark.fault(35)
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
