"""The matrix is honest: every row has a test or a reason, and no test names a row that is not."""

import ast
from pathlib import Path

from tests.e2e.faults.matrix import ROWS

TESTS = Path(__file__).parents[2]


def injected() -> set[int]:
    """Rows that a `pytest.mark.fault(...)` anywhere below tests/ names."""
    found: set[int] = set()
    for file in TESTS.rglob("test_*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.fault":
                found |= {ast.literal_eval(argument) for argument in node.args}
    return found


def test_every_row_is_injected_or_says_why_not() -> None:
    tested = injected()
    assert tested <= {row.number for row in ROWS}
    silent = [row.number for row in ROWS if row.number not in tested and not row.unrun]
    assert not silent, f"rows of the matrix without a test and without a reason: {silent}"
    both = [row.number for row in ROWS if row.number in tested and row.unrun]
    assert not both, f"rows that are tested although the matrix says they are not: {both}"


def test_rows_are_numbered_in_order() -> None:
    assert [row.number for row in ROWS] == list(range(1, len(ROWS) + 1))
