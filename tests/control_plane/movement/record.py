"""`python -m tests.control_plane.movement.record`: the histories of today's stories, saved anew.

Runs the stories' tests on a Temporal server of their own; each test is a path. Those of earlier
versions (`histories/first`) are never recorded again: that code is gone.
"""

import os
import sys
from pathlib import Path

import pytest

from tests.control_plane.movement.telling import HISTORIES, SAVE


def main() -> int:
    for old in HISTORIES.glob("*.json"):
        old.unlink()
    os.environ[SAVE] = "1"
    here = Path(__file__).parent
    return pytest.main(["-q", str(here / "test_stories.py"), str(here / "test_planned_stories.py")])


if __name__ == "__main__":
    sys.exit(main())
