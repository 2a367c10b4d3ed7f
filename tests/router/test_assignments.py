"""What may replace what under one execution's key."""

from hypothesis import given
from hypothesis import strategies as st
from whimbrel.spec import Assignment, Want

from router.assignments import merge

RUN = Assignment("p/d/x", 2, "east")
LEVELS = [Want.RUN, Want.QUIESCE, Want.CANCEL]
some = st.builds(
    Assignment,
    st.just("p/d/x"),
    st.integers(1, 3),
    st.sampled_from(["east", "west"]),
    st.sampled_from(LEVELS),
    st.integers(0, 2),
)


def test_an_older_epoch_is_refused() -> None:
    for cluster in ("west", "east"):
        assert merge(RUN, Assignment("p/d/x", 1, cluster)) is None


def test_the_same_epoch_for_another_cluster_is_refused() -> None:
    assert merge(RUN, Assignment("p/d/x", 2, "west")) is None


def test_a_new_epoch_starts_at_its_own_level() -> None:
    cancelled = Assignment("p/d/x", 2, "east", Want.CANCEL)
    anew = Assignment("p/d/x", 3, "west", Want.RUN)
    assert merge(cancelled, anew) == anew


@given(st.lists(some, max_size=8))
def test_epoch_never_falls_and_want_and_gate_only_rise_within_one(wishes: list[Assignment]) -> None:
    stored: Assignment | None = None
    for wish in wishes:
        merged = merge(stored, wish)
        if merged is None:
            continue
        if stored is not None:
            assert merged.epoch >= stored.epoch
            if merged.epoch == stored.epoch:
                assert merged.cluster == stored.cluster
                assert LEVELS.index(merged.want) >= LEVELS.index(stored.want)
                assert merged.gate >= stored.gate
        stored = merged
