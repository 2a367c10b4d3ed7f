"""etcd's keys compare before they are written; nobody is called lost whom we could not hear."""

from functools import partial

from tests.mutations.mutation import Mutation

Keys = partial(Mutation, file="router/assignments.py")
Members = partial(Mutation, file="router/membership.py")
Pulses = partial(Mutation, file="router/pulse.py")
Sessions = partial(Mutation, file="router/sessions.py")
KEYS = "tests/router/test_assignments.py::"
MEMBERS = "tests/router/test_membership.py::"
PULSES = "tests/router/test_pulse.py::"
SESSIONS = "tests/router/test_sessions.py::"
LIVE = "tests/router/test_router_live.py::"

MUTATIONS = (
    Keys(
        "put_compare", "KEY", "An assignment of an older epoch never replaces a newer one.",
        within="merge", old="stored.epoch > own.epoch or", new="",
        tests=(f"{KEYS}test_an_older_epoch_is_refused",),
    ),
    Keys(
        "put_cluster", "KEY", "One epoch is assigned to one cluster.",
        within="merge", old="or stored.cluster != own.cluster", new="",
        tests=(f"{KEYS}test_the_same_epoch_for_another_cluster_is_refused",),
    ),
    Keys(
        "want_rises", "KEY", "Within an epoch, what is wanted of an owner only rises.",
        within="merge", old="max(stored.want, own.want, key=_LEVEL.__getitem__)", new="own.want",
        tests=(f"{KEYS}test_epoch_never_falls_and_want_and_gate_only_rise_within_one",),
    ),
    Keys(
        "gate_rises", "KEY", "Within an epoch, the gate's counter only rises.",
        within="merge", old="gate=max(stored.gate, own.gate)", new="gate=own.gate",
        tests=(f"{KEYS}test_epoch_never_falls_and_want_and_gate_only_rise_within_one",),
    ),
    Keys(
        "delete_compare", "KEY", "A late delete takes away no newer assignment.",
        within="Assignments._unassign", old=".epoch > epoch:", new=".epoch > epoch and False:",
        tests=(f"{LIVE}test_assign_compares",),
    ),
    Mutation(
        "swap_compare", "KEY", "etcd writes only what still is as it was read.",
        file="router/etcd.py", within="Etcd.swap",
        old="compare = KVService.txn_compare_value(name, expected)",
        new='compare = KVService.txn_compare_create_revision("nothing", 0)',
        tests=(f"{SESSIONS}test_a_swap_writes_only_over_what_was_read",),
    ),
    Members(
        "heard_long_enough", "liveness", "Nobody is lost before all could be heard for two TTLs.",
        within="observe", old="certain = now.at - since >= 2 * members.ttl", new="certain = True",
        tests=(f"{MEMBERS}test_nobody_is_lost_before_two_ttls_after_the_start",),
    ),
    Members(
        "outage_counts", "liveness", "After an outage of etcd the count begins anew.",
        within="observe", old="or now.outages != members.outages", new="",
        tests=(f"{MEMBERS}test_an_outage_too_short_for_a_tick_counts",),
    ),
    Members(
        "stood_still", "liveness", "A router that stood still blames itself.",
        within="observe", old="or stood_still", new="",
        tests=(f"{MEMBERS}test_a_router_that_stood_still_blames_itself",),
    ),
    Members(
        "deaf", "liveness", "A router that hears nobody judges nobody.",
        within="observe", old="if not now.hearing:", new="if False:",
        tests=(f"{MEMBERS}test_a_deaf_router_judges_nobody",),
    ),
    Pulses(
        "one_way_cut", "I8", "Who sees no acknowledgement for a TTL is not renewed.",
        within="failing", old="if pulse.beat_at - pulse.ack_at >= ttl:", new="if False:",
        tests=(f"{PULSES}test_no_acknowledgement_seen_for_a_ttl",),
    ),
    Pulses(
        "engine_stuck", "I8", "An agent whose engine decides nothing is not renewed.",
        within="failing", old="if pulse.beat_at - pulse.progress_at >= stall:", new="if False:",
        tests=(f"{PULSES}test_a_stuck_engine_with_work",),
    ),
    Sessions(
        "pulse_asked", "I8", "No lease is renewed against the pulse.",
        within="Sessions.beat", old="if why := failing(", new="if (why := None) and failing(",
        tests=(f"{SESSIONS}test_a_deaf_agent_is_not_renewed",),
    ),
    Sessions(
        "session_same", "I2", "A heartbeat of another session renews nothing.",
        within="Sessions.beat", old="if session is None or not _same(session, beat):",
        new="if session is None:", tests=(f"{SESSIONS}test_only_the_stored_session_is_renewed",),
    ),
    Sessions(
        "lease_gone", "I6", "A session whose lease has gone is over for good.",
        within="Sessions.beat", old="if left <= 0:", new="if False:",
        tests=(f"{SESSIONS}test_a_lease_that_has_gone_is_never_renewed",),
    ),
    Sessions(
        "resume_incarnation", "I2", "Only the process that had a session resumes it.",
        within="Sessions._resume", old="if stored.incarnation != hello.incarnation:",
        new="if False:", tests=(f"{SESSIONS}test_another_process_resumes_nothing",),
    ),
    Sessions(
        "newer_session", "I2", "An older session never takes the key of a newer one.",
        within="Sessions._open", old="before.cluster_epoch > epoch:",
        new="before.cluster_epoch > epoch and False:",
        tests=(f"{SESSIONS}test_a_newer_session_keeps_its_key",),
    ),
    Sessions(
        "epoch_above", "I2", "A new session's epoch is above every one that stood before.",
        within="Sessions._next_epoch", old="if epoch > before:", new="if True:",
        tests=(f"{SESSIONS}test_a_new_session_is_above_the_stored_one",),
    ),
)  # fmt: skip
