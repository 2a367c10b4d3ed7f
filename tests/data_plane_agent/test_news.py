"""What a launcher tells: in order, not of what was cancelled, nothing after an end, and its own
breakdown."""

import asyncio

import pytest
from whimbrel.spec import Failure, Outputs, Owner

from data_plane_agent.launcher import AttemptKey, Broke, Finished, Started
from data_plane_agent.news import News

pytestmark = pytest.mark.anyio
ONE, OTHER = AttemptKey("x", "one", 1, 1), AttemptKey("x", "other", 1, 1)


def ended(key: AttemptKey) -> Finished:
    return Finished(key, Outputs("{}", "d"), "i", 1, 2)


async def test_an_attempt_is_told_of_until_its_end_or_until_it_is_cancelled() -> None:
    kept = {ONE, OTHER}
    news = News[AttemptKey](lambda key: key in kept)
    lost = Broke(ONE, Failure(Owner.SYSTEM, "pod_lost", "gone"), 1, 2)
    for event in (Started(ONE, 1), Started(OTHER, 1), ended(ONE), lost, ended(OTHER)):
        news.tell(event, event.key)
    kept.remove(OTHER)
    assert [event for event, _ in await news.batch()] == [Started(ONE, 1), ended(ONE)]


async def test_who_asks_waits_for_something_to_tell() -> None:
    news = News[AttemptKey](lambda key: key == ONE)
    asking = asyncio.create_task(news.batch())
    news.tell(Started(OTHER, 1), OTHER)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not asking.done()
    news.tell(Started(ONE, 1), ONE)
    assert await asking == [(Started(ONE, 1), ONE)]


async def test_who_asks_hears_what_broke() -> None:
    news = News[AttemptKey](lambda key: True)
    news.broke(ValueError("a bug"))
    with pytest.raises(ValueError, match="a bug"):
        await news.batch()
