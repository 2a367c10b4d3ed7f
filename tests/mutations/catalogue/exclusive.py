"""Work that does harm twice: its next owner waits, and its old copy is ended by the kernel."""

from functools import partial

from tests.mutations.mutation import Mutation

Old = partial(Mutation, file="control_plane/executions/exclusive.py")
Timer = partial(Mutation, file="sdk/whimbrel/runtime_timer.py")
TESTS = "tests/control_plane/test_exclusive.py::"
TIMER = "tests/data_plane_agent/test_runtime_timer.py::"
ORPHANS = "tests/data_plane_agent/processes/test_orphans.py::"

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
    Mutation(
        "family_mark", "I6", "What a task left is found when its family is dead, too.",
        "data_plane_agent/processes/gone.py", "end_all_of",
        old=" or (marks and _marked(folder, marks))", new="",
        tests=(f"{ORPHANS}test_killed_after_its_family_it_is_dead_with_all_that_it_left",),
    ),
    Mutation(
        "family_told", "I6", "A task's end is told when nothing of it is left.",
        "data_plane_agent/processes/ends.py", "Ends._bury",
        old="await gone([worker])", new="pass",
        tests=(f"{ORPHANS}test_with_its_family_all_of_a_task_ends_before_that_is_told",),
    ),
    Mutation(
        "family_module", "I6", "No exclusive family is ended for another module's import.",
        "data_plane_agent/processes/launcher.py", "ProcessLauncher._queue",
        old='module_of(task.entry_point) if attempt.exclusive else ""', new='""',
        tests=(f"{ORPHANS}test_another_modules_slow_import_costs_it_nothing",),
    ),
)  # fmt: skip
