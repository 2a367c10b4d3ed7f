"""A change of a story's code must not strand the stories that are open: saved histories of every
path replay, those of the first version too.

`python -m tests.control_plane.movement.record` records today's again.
"""

import json
from pathlib import Path

import pytest
from temporalio.client import WorkflowHistory
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.worker import Replayer, UnsandboxedWorkflowRunner

from control_plane.movement.worker import STORIES
from tests.control_plane.movement.telling import HISTORIES

pytestmark = pytest.mark.anyio


@pytest.mark.fault(32)
@pytest.mark.parametrize("saved", sorted(HISTORIES.rglob("*.json")), ids=lambda path: path.stem)
async def test_saved_histories_replay(saved: Path) -> None:
    replayer = Replayer(
        workflows=list(STORIES),
        data_converter=pydantic_data_converter,
        workflow_runner=UnsandboxedWorkflowRunner(),
    )
    await replayer.replay_workflow(
        WorkflowHistory.from_json(saved.stem, json.loads(saved.read_text()))
    )


@pytest.mark.parametrize(
    ("folder", "stories"),
    [("first", {"failover", "move"}), ("", {"failover", "move", "migrate", "drain"})],
)
def test_there_are_histories_of_every_story(folder: str, stories: set[str]) -> None:
    kinds = {path.stem.split("-")[0] for path in (HISTORIES / folder).glob("*.json")}
    assert kinds == stories
