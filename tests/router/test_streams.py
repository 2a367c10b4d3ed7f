"""An agent's stream as the router fills it, whether or not the agent reads."""

import pytest
from whimbrel.spec import Assignment

from router.streams import All, Changed, Removed, Stream

pytestmark = pytest.mark.anyio


@pytest.mark.fault(11)
async def test_a_slow_agent_costs_no_memory() -> None:
    """Ten thousand changes of ten runs are ten wishes when it reads at last."""
    stream = Stream("s", cluster="c", session="x", everything=list)
    messages = stream.messages()
    assert await anext(messages) == All([])
    for epoch in range(1, 1001):
        for run in range(10):
            stream.changed(Assignment(f"p/d/{run}", epoch, "c"))
    stream.removed(Assignment("p/d/0", 1000, "c"))
    changed, removed = await anext(messages), await anext(messages)
    assert isinstance(changed, Changed)
    assert {(one.execution, one.epoch) for one in changed.assignments} == {
        (f"p/d/{run}", 1000) for run in range(1, 10)
    }
    assert removed == Removed([Assignment("p/d/0", 1000, "c")])
    assert stream._pending == {}
