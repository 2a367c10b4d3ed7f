"""Inside the agent: the Claim comes first, a new session begins anew, a refused word is not built
on."""

from functools import partial

from tests.mutations.mutation import Mutation

Starting = partial(Mutation, file="data_plane_agent/starting.py")
Engine = partial(Mutation, file="data_plane_agent/engine.py")
Commits = partial(Mutation, file="data_plane_agent/commits.py")
Outbox = partial(Mutation, file="data_plane_agent/outbox.py")
Holdings = partial(Mutation, file="data_plane_agent/holdings.py")
Run = partial(Mutation, file="data_plane_agent/run.py")
ENGINE = "tests/data_plane_agent/test_engine.py::"
REFUSED = "tests/data_plane_agent/test_engine_refused.py::"
OUTBOX = "tests/data_plane_agent/test_outbox.py::"
HELD = "tests/data_plane_agent/test_engine_held.py::"
SESSION = "tests/data_plane_agent/test_commits_session.py::"
COMMITS = "tests/data_plane_agent/test_commits.py::"
MOVED_ON = (f"{ENGINE}test_a_new_session_drops_what_moved_on",)
ADOPTS = (f"{ENGINE}test_a_restart_adopts_what_fits_and_repeats_nothing",)

MUTATIONS = (
    Engine(
        "claim_obeyed", "I4", "What a Claim refuses is stopped and started no more.",
        within="Engine._claim_these",
        old="self.holdings.refused(answer.execution, answer.epoch, work)", new="pass",
        tests=MOVED_ON,
    ),
    Starting(
        "start_claimed", "I4", "An attempt starts only while its run is held.",
        within="Starting.start", old="if run is None:",
        new="if run is None and (await self._launcher.start([one]) or True):",
        tests=(f"{HELD}test_a_retry_that_was_waited_for_does_not_outlive_its_run",),
    ),
    Engine(
        "session_shuts", "I3", "A new session commits nothing before everything is claimed again.",
        within="Engine.joined", old="self.commits.shut()", new="pass", tests=MOVED_ON,
    ),
    Engine(
        "outbox_dropped", "I3", "A new session drops what it did not get to claim.",
        within="Engine._reconcile",
        old="m.Wish(one.execution, one.epoch) in claimed)", new="True)", tests=MOVED_ON,
    ),
    Outbox(
        "numbers_anew", "I8", "A new session's events count from 1 again.",
        within="Outbox.renumber", old="self.first = 1", new="pass",
        tests=(f"{OUTBOX}test_numbers",),
    ),
    Outbox(
        "forgotten", "I10", "What was said after a refused event is said no more.",
        within="Outbox.settle", old="(entry.execution, entry.epoch) not in forget", new="True",
        tests=(f"{OUTBOX}test_what_is_to_be_forgotten_is_not_said_by_a_restart_either",),
    ),
    Outbox(
        "forgotten_mark", "I10", "Nor after a crash.",
        within="Outbox.settle", old="self._marks.extend(", new="list(",
        tests=(f"{OUTBOX}test_what_is_to_be_forgotten_is_not_said_by_a_restart_either",),
    ),
    Outbox(
        "torn", "I8", "A torn or flipped record ends what is read.",
        within="decode", old="or zlib.crc32(body) != crc", new="",
        tests=(f"{OUTBOX}test_a_flipped_byte_ends_the_prefix",),
    ),
    Outbox(
        "durable_first", "I8", "An event is sent when it is on disk.",
        within="Outbox._append", old="os.fdatasync(self._file)", new="pass",
        tests=("tests/data_plane_agent/test_outbox.py::test_a_full_disk_is_said_and_outlived",),
    ),
    Commits(
        "commits_in_session", "I3", "Nothing is sent in jeopardy.",
        within="Commits.run", old="if not self._guard.state.commits:", new="if False:",
        tests=(f"{SESSION}test_nothing_is_sent_in_jeopardy",),
    ),
    Commits(
        "answer_of_session", "I8", "The answer of an old session settles nothing of the new one.",
        within="Commits.run", old="if session == self._cluster_epoch:", new="if True:",
        tests=(f"{SESSION}test_the_answer_of_an_old_session_settles_nothing",),
    ),
    Commits(
        "doubted_dropped", "I10", "Of a refused run nothing is said before it is claimed anew.",
        within="Commits._take", old="forget=doubted", new="forget=set()",
        tests=(f"{COMMITS}test_what_was_said_after_a_refused_event_is_dropped",),
    ),
    Engine(
        "fenced_stops", "I7", "Who is fenced stops what it runs.",
        within="Engine._objected", old="self.holdings.refused(execution, epoch, work)", new="pass",
        tests=(f"{ENGINE}test_fenced_in_the_middle_stops_its_attempts",),
    ),
    Engine(
        "conflict_begins_anew", "I10", "Where another output is kept, its dependents run again.",
        within="Engine._objected", old="self.holdings.doubt(execution)", new="pass",
        tests=(f"{REFUSED}test_a_kept_output_wins_and_its_dependents_run_again",),
    ),
    Holdings(
        "dropped_stops", "I7", "The attempts of a run that is dropped are stopped.",
        within="Holdings.drop", old="run.stop(work)", new="pass",
        tests=(f"{ENGINE}test_fenced_in_the_middle_stops_its_attempts",),
    ),
    Holdings(
        "silence_kills_nothing", "I8", "An assignment that is not there any more kills nothing.",
        within="Holdings.assigned",
        old="self.again.update((x, self.again.get(x, False)) for x in self.runs if x not in named)",
        new="[self.drop(x, self.runs[x].epoch, work) for x in list(self.runs) if x not in named]",
        tests=(f"{ENGINE}test_silence_kills_nothing_but_is_asked_about",),
    ),
    Run(
        "adopted_digest", "I10", "An attempt is adopted only when its inputs are today's.",
        within="Run.begin", old="key = usable.get((decision.node, decision.input_digest))",
        new="key = next((k for k in usable.values() if k.node == decision.node), None)",
        tests=ADOPTS,
    ),
    Run(
        "adopted_epoch", "I3", "An attempt of an older epoch is not adopted.",
        within="Run.begin", old="if key.epoch == self.epoch and", new="if",
        tests=(f"{HELD}test_an_attempt_of_an_older_epoch_is_not_adopted",),
    ),
    Run(
        "released_last", "I6", "Whose RELEASED waits in the outbox starts nothing.",
        within="Run.begin", old="if any(isinstance(event, m.LAST) for event in pending):",
        new="if False:", tests=(f"{HELD}test_what_was_let_go_of_is_not_started_while_that_waits",),
    ),
    Run(
        "ended_silent", "I6", "After its last word a run says and starts nothing.",
        within="Run._end", old="self.stop(work)", new="pass",
        tests=(f"{HELD}test_after_its_last_word_a_run_is_stopped_though_nobody_has_heard_it",),
    ),
    Mutation(
        "reuse_digest", "I10", "A committed output is kept only where its inputs are today's.",
        file="data_plane_agent/dag.py", within="_settle",
        old="if known is not None and known.input_digest == made_from:",
        new="if known is not None:",
        tests=("tests/data_plane_agent/test_dag.py::test_an_output_of_other_inputs_is_not_kept",),
    ),
)  # fmt: skip
