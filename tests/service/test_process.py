"""A server's life: a first signal asks it to stop, a second one does not wait for what it still
does."""

import asyncio
import os
import signal

import pytest
from whimbrel.service.process import run_until_stopped


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_asked_to_stop_it_ends_by_itself(number: signal.Signals) -> None:
    story: list[str] = []

    async def main(stop: asyncio.Event) -> None:
        os.kill(os.getpid(), number)
        await stop.wait()
        story.append("stopped")

    asyncio.run(run_until_stopped(main))
    assert story == ["stopped"]


def test_asked_twice_it_ends_in_the_middle_of_its_drain_and_still_cleans_up() -> None:
    story: list[str] = []

    async def main(stop: asyncio.Event) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        await stop.wait()
        os.kill(os.getpid(), signal.SIGTERM)
        try:
            await asyncio.Event().wait()  # a drain that takes for ever
            story.append("drained")
        finally:
            story.append("cleaned up")

    asyncio.run(run_until_stopped(main))
    assert story == ["cleaned up"]


def test_an_error_passes() -> None:
    async def main(stop: asyncio.Event) -> None:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        asyncio.run(run_until_stopped(main))
