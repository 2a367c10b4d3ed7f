"""Work that does harm twice: its next owner waits, and its old copy is ended by the kernel."""

from functools import partial

from tests.mutations.mutation import Mutation

Old = partial(Mutation, file="control_plane/executions/exclusive.py")
Timer = partial(Mutation, file="sdk/whimbrel/runtime_timer.py")
TESTS = "tests/control_plane/test_exclusive.py::"
TIMER = "tests/data_plane_agent/test_runtime_timer.py::"

MUTATIONS = (
    Old(
        "exclusive_wait", "I6", "Exclusive work waits until its old copy must be dead.",
        within="OldCopies.living", old="if now - seen.since < self._wait:", new="if False:",
        tests=(f"{TESTS}test_the_next_owner_waits_for_the_last_ones_death[sqlite]",),
    ),
    Old(
        "exclusive_rate", "I6", "The wait leaves room for an old owner whose clock is slow.",
        within="OldCopies._wait", old="self._ttl * (1 + RHO)", new="self._ttl",
        tests=(f"{TESTS}test_the_next_owner_waits_for_the_last_ones_death[sqlite]",),
    ),
    Old(
        "exclusive_margin", "I6", "The wait leaves room for the time that a kill takes.",
        within="OldCopies._wait", old="+ self._margin", new="",
        tests=(f"{TESTS}test_the_next_owner_waits_for_the_last_ones_death[sqlite]",),
    ),
    Old(
        "exclusive_key", "I6", "The wait begins when the old copy's key has gone.",
        within="OldCopies._begin", old="if result.written:", new="if True:",
        tests=(f"{TESTS}test_the_wait_begins_when_the_old_key_has_gone[sqlite]",),
    ),
    Old(
        "exclusive_ttl", "I6", "The longest TTL counts that a session may have been opened under.",
        within="OldCopies.living",
        old="max(self._ttl, (await self._router.snapshot()).ttl_ms / 1000)",
        new="(await self._router.snapshot()).ttl_ms / 1000",
        tests=(f"{TESTS}test_a_longer_ttl_of_before_counts[sqlite]",),
    ),
    Old(
        "exclusive_every", "I6", "Every loss of the same run is waited for.",
        within="OldCopies._counts", old="self._seen[row.execution].epoch == row.epoch", new="True",
        tests=(f"{TESTS}test_every_loss_is_waited_for[sqlite]",),
    ),
    Timer(
        "timer_armed", "I6", "The kernel ends an exclusive task at its deadline.",
        within="KillTimer.arm", old="self._set(until_ns)", new="pass",
        tests=(f"{TIMER}test_a_deadline_that_has_passed_ends_it_at_once",),
    ),
    Timer(
        "timer_later", "I6", "A renewal moves the deadline only ever later.",
        within="KillTimer.push", old="and until_ns > self.until_ns:", new="and until_ns:",
        tests=(f"{TIMER}test_an_earlier_push_is_ignored",),
    ),
)  # fmt: skip
