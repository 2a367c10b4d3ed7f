"""What is recorded of one run: its timeline, its placements, what was made, its row in the end.

Read from a database by `trace.py`, judged by `replay.py`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Line:
    """An entry of `timeline`."""

    epoch: int
    kind: str
    cluster: str
    text: str


@dataclass(frozen=True)
class Made:
    """A row of `node_output`."""

    node: str
    epoch: int
    cluster: str
    session: int


@dataclass(frozen=True)
class Last:
    """The row as it is in the end."""

    epoch: int
    owner: str
    session: int
    released: bool
    want: str
    phase: str


@dataclass(frozen=True)
class History:
    execution: str
    mode: str
    lines: Sequence[Line]
    placed: Mapping[int, str]
    made: Sequence[Made]
    last: Last
