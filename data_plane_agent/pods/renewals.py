"""Which exclusive attempts in pods may run on and for how long, and when none of one can run any
more.

Asked by `mailbox.py` for each question of a pod, by `launcher.py` before it tells the end of an
attempt whose node has not said that it is over. Knows the session through `Renewal` only. The pod's
side is `whimbrel.runtime_pod_renewals`.
"""

from collections.abc import Callable, Iterable

from whimbrel.runtime_timer import boottime_ns

from data_plane_agent.launcher import Renewal
from data_plane_agent.pods.held import Held

MARGIN_NS = 1_000_000_000
"""Past the last possible deadline: the kernel's timer and the end of what the task started are as
exact as the machine. Shorter: two at once; longer: a lost node's work is tried again later."""


class PodRenewals:
    """Without a `Renewal` nothing exclusive starts here."""

    def __init__(
        self, renewal: Renewal | None, *, clock_ns: Callable[[], int] = boottime_ns
    ) -> None:
        self._renewal = renewal
        self._clock_ns = clock_ns
        self._live = False

    def left_ns(self, held: Held | None) -> int:
        """For an answer to its question, 0 = none. What is answered is remembered before it is
        sent: it may arrive when nobody knows the attempt any more."""
        until, now = self._until_ns(), self._clock_ns()
        if held is None or not held.renewable or held.ending or until <= now:
            return 0
        held.until_ns = max(held.until_ns or 0, until)
        return until - now

    def look(self, held: Iterable[Held]) -> None:
        """To be called often. A session that was live and is not any more takes its attempts with
        it: the next one renews only what it has claimed, see `Launcher.adopt`."""
        until = self._until_ns()
        live = until > self._clock_ns()
        for one in held:
            if self._live and not live:
                one.renewable = False
            if live and one.exclusive and one.until_ns is None:
                one.until_ns = until  # later than anything an agent before this one could answer
        self._live = live

    def may_run(self, held: Held) -> bool:
        """An exclusive attempt may while its node has not said that its container has ended and its
        last possible deadline has not passed. Of others only their pods tell."""
        ended = held.sight is not None and held.sight.ended is not None
        if not held.exclusive or ended:
            return False
        return held.until_ns is None or self._clock_ns() <= held.until_ns + MARGIN_NS

    def _until_ns(self) -> int:
        return self._renewal.until_ns() if self._renewal is not None else 0
