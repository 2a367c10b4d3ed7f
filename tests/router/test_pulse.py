"""A heartbeat that arrives is not enough: the way back and the engine must live too."""

from dataclasses import replace

import pytest

from router.pulse import Beat, Pulse, failing, feel

BEAT = Beat("s", "east", 1, 1, 0)
TTL = 2.0


def after(beats: list[tuple[float, Beat]], stall: float = 60) -> str:
    pulse: Pulse | None = None
    for now, beat in beats:
        pulse = feel(pulse, beat, now=now, ttl=TTL)
    assert pulse is not None
    return failing(pulse, ttl=TTL, stall=stall)


def test_no_acknowledgement_seen_for_a_ttl() -> None:
    deaf = [(n * 0.4, replace(BEAT, n=n, last_ack_n=3)) for n in range(6)]
    assert "acknowledgement" in after(deaf)
    assert after(deaf[:5]) == ""
    heard = [(n * 0.4, replace(BEAT, n=n, last_ack_n=n - 1)) for n in range(20)]
    assert after(heard) == ""


def test_an_agent_that_paused_is_not_deaf() -> None:
    assert after([(0.0, BEAT), (2.5, replace(BEAT, n=2))]) == ""


@pytest.mark.fault(4)
def test_a_stuck_engine_with_work() -> None:
    stuck = [
        (n * 0.4, replace(BEAT, n=n, last_ack_n=n, engine_progress=7, work_pending=True))
        for n in range(20)
    ]
    assert "engine" in after(stuck, stall=5)
    assert after(stuck, stall=60) == ""
    idle = [(at, replace(beat, work_pending=False)) for at, beat in stuck]
    assert after(idle, stall=5) == ""
