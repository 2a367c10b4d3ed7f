"""What became of each injected fault, written down for the failure report.

A plugin of pytest, used by tests/e2e/conftest.py: `--faults-json FILE` gathers the tests that are
marked with rows of the matrix.
"""

import json
from pathlib import Path
from typing import Any

import pytest


class Record:
    def __init__(self, file: Path) -> None:
        self.file = file
        self.tests: list[dict[str, Any]] = []

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
        report = yield
        mark = item.get_closest_marker("fault")
        if mark is not None and (report.when == "call" or report.outcome != "passed"):
            self.tests.append(
                {
                    "rows": list(mark.args),
                    "test": item.nodeid,
                    "outcome": report.outcome,
                    "seconds": round(report.duration, 2),
                    "figures": dict(item.user_properties),
                }
            )
        return report

    def pytest_sessionfinish(self) -> None:
        self.file.write_text(json.dumps(self.tests, indent=2) + "\n")
