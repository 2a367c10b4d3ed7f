"""Answers as user code may leave them: what is believed can be told to the ledger."""

import json
import os
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from whimbrel.spec import Owner

from data_plane_agent import codec
from data_plane_agent import messages as m
from data_plane_agent.attempt_answers import end_of
from data_plane_agent.documents import outputs_of
from data_plane_agent.launcher import Broke, Finished
from data_plane_agent.pods.answers import complete, is_artifact, parsed
from tests.data_plane_agent.pods.world import broke, done

KEY = ["p/d/x", "n", 1, 2]
NOT_UTF8 = os.fsdecode(b"caf\xe9")

odd = st.one_of(
    st.text(st.characters()),
    st.sampled_from([NOT_UTF8, "{", "{}", '{"o":NaN}', '{"o":1e999}', '{"o":"\\udce9"}', "[]"]),
    st.integers(),
    st.sampled_from([10**30, -1, 2**63, 2**63 - 1, True, None, 1.5]),
)
artifact = st.fixed_dictionaries(
    dict.fromkeys(("uri", "sha256", "bytes", "region", "kind"), odd),
    optional={"allowed_regions": st.one_of(odd, st.lists(odd, max_size=2))},
)
fields = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(("s", "e", "value", "digest", "message", "kind", "tb", "d"), odd),
        **dict.fromkeys(("offloaded", "stdout"), artifact),
        **dict.fromkeys(
            ("artifacts", "unreadable"), st.lists(st.one_of(odd, artifact), max_size=2)
        ),
    },
)


def told(event: Finished | Broke) -> bytes:
    """As `run.py` says it."""
    if isinstance(event, Finished):
        assert event.outputs.offloaded or outputs_of(event.outputs.value) is not None
        said: m.Event = m.NodeOutput("n", 1, event.outputs, event.input_digest, event.started_ns,
                                     event.ended_ns, event.logs)  # fmt: skip
    else:
        said = m.AttemptFailed("n", 1, event.failure, False, event.started_ns, event.ended_ns,
                               event.logs)  # fmt: skip
    codec.encode(m.Unreachable("n", getattr(event, "unreadable", ())), execution="x", epoch=1)
    return codec.encode(said, execution="p/d/x", epoch=2)


@given(st.sampled_from([done(), broke()]), fields)
def test_what_is_believed_can_be_told(good: dict[str, Any], more: dict[str, Any]) -> None:
    message = {**good, **more}
    event = end_of({**message, "k": KEY})
    told(event)
    if complete(parsed(json.dumps(message))):
        assert not (isinstance(event, Broke) and event.failure.kind == "bad_answer")


def test_words_that_are_no_utf8_stay_the_tasks_own_error() -> None:
    event = end_of({**broke(), "k": KEY, "message": NOT_UTF8})
    assert isinstance(event, Broke)
    assert (event.failure.kind, event.failure.message) == ("raised", "caf?")


@pytest.mark.parametrize(
    "more", [{"s": 10**30}, {"value": "{"}, {"value": "[]"}, {"value": '{"o":1e999}'}]
)
def test_what_can_not_be_told_is_the_tasks_fault(more: dict[str, Any]) -> None:
    event = end_of({**done(), "k": KEY, **more})
    assert isinstance(event, Broke)
    assert (event.failure.owner, event.failure.kind) == (Owner.USER, "bad_answer")
    assert not complete({**done(), **more})


def test_endless_nesting_is_no_answer() -> None:
    deep = "[" * 100_000 + "]" * 100_000
    assert parsed(deep) is None
    assert outputs_of(deep) is None
    assert not complete({**done(), "value": deep})


def test_an_artifact_of_impossible_size() -> None:
    good = {"uri": "u", "sha256": "s", "bytes": 1, "region": "r", "kind": "file"}
    assert is_artifact(good)
    assert not is_artifact({**good, "bytes": 10**30})
