"""Whether a heartbeat still deserves a renewal: pure, from what this replica saw of the session.

Called by `sessions.py` for every beat. An agent that hears no acknowledgement, or whose engine is
stuck, must run out of its lease although its heartbeats arrive.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Beat:
    """One heartbeat. `n` counts; `last_ack_n` of the newest acknowledgement the agent has seen;
    `compute_ok` False keeps new work away and does not touch the session. `held` is the digest of
    what the agent holds, "" = it does not say."""

    session: str
    cluster: str
    cluster_epoch: int
    n: int
    last_ack_n: int
    engine_progress: int = 0
    work_pending: bool = False
    compute_ok: bool = True
    held: str = ""


@dataclass(frozen=True, slots=True)
class Pulse:
    """Seconds of a steady clock: the newest beat, and when each counter last moved."""

    beat_at: float
    last_ack_n: int
    ack_at: float
    engine_progress: int
    progress_at: float


def feel(before: Pulse | None, beat: Beat, *, now: float, ttl: float) -> Pulse:
    if before is None or now - before.beat_at >= ttl:
        # The agent itself paused: what stood still in that time says nothing about the way back.
        return Pulse(now, beat.last_ack_n, now, beat.engine_progress, now)
    moved = beat.last_ack_n > before.last_ack_n
    working = beat.engine_progress != before.engine_progress or not beat.work_pending
    return Pulse(
        now,
        beat.last_ack_n,
        now if moved else before.ack_at,
        beat.engine_progress,
        now if working else before.progress_at,
    )


def failing(pulse: Pulse, *, ttl: float, stall: float) -> str:
    """Why this session is not to be renewed, or ""."""
    if pulse.beat_at - pulse.ack_at >= ttl:
        return f"it has seen no acknowledgement for {ttl:g} s"
    if pulse.beat_at - pulse.progress_at >= stall:
        return f"its engine has work and decided nothing for {stall:g} s"
    return ""
