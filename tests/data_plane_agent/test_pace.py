"""Writes at a rate: a burst first, then one after the other."""

import anyio
import pytest

from data_plane_agent.pace import Pace

pytestmark = pytest.mark.anyio


class Time:
    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []

    def pace(self, rate: float, *, burst: int) -> Pace:
        async def sleep(seconds: float) -> None:
            self.slept.append(round(seconds, 3))

        return Pace(rate, burst=burst, clock=lambda: self.now, sleep=sleep)


async def test_a_burst_is_free_and_what_follows_is_spread() -> None:
    time = Time()
    pace = time.pace(10, burst=3)
    for _ in range(6):
        await pace.turn()
    assert time.slept == [0.1, 0.2, 0.3]


async def test_quiet_time_fills_it_up_to_the_burst() -> None:
    time = Time()
    pace = time.pace(10, burst=3)
    for _ in range(3):
        await pace.turn()
    time.now += 1000
    for _ in range(4):
        await pace.turn()
    assert time.slept == [0.1]


async def test_a_cancelled_turn_costs_nothing() -> None:
    time = Time()

    async def forever(_: float) -> None:
        await anyio.sleep_forever()

    pace = Pace(1, burst=1, clock=lambda: time.now, sleep=forever)
    await pace.turn()
    with anyio.move_on_after(0):
        await pace.turn()
    time.now += 1.0
    with anyio.fail_after(5):
        await pace.turn()
