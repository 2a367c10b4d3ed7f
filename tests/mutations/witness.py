"""Inside the pytest of a copy: whose packages are these, and what failed with what?

Loaded by `checkout.py` with `-p`; ends the run at once when it would test another checkout than the
one it runs in; writes `--seen`.
"""

import importlib.util
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pytest

PACKAGES = ("whimbrel", "control_plane", "router", "data_plane_agent", "tests")


@dataclass(eq=False)
class Seen:
    """`failed`: id of a test -> the error's line; `broken`: what could not be collected."""

    failed: dict[str, str] = field(default_factory=dict[str, str])
    broken: dict[str, str] = field(default_factory=dict[str, str])
    passed: int = 0
    skipped: int = 0

    @classmethod
    def read(cls, file: Path) -> "Seen":
        return cls(**json.loads(file.read_text())) if file.exists() else cls()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failed.setdefault(report.nodeid, last_line(report.longrepr))
        elif report.skipped:
            self.skipped += 1
        elif report.when == "call":
            self.passed += 1

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.broken[report.nodeid] = last_line(report.longrepr)


def last_line(said: Any) -> str:
    crash = getattr(said, "reprcrash", None)
    text = str(crash.message) if crash is not None else str(said).strip().splitlines()[-1]
    return text.splitlines()[0] if text else ""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seen", type=Path, help="write what failed, for tests.mutations")


def pytest_configure(config: pytest.Config) -> None:
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        origin = spec.origin if spec is not None else None
        if origin is None or not Path(origin).resolve().is_relative_to(config.rootpath.resolve()):
            raise pytest.UsageError(f"{name} is {origin}, not the copy in {config.rootpath}")
    config.pluginmanager.register(Seen(), "seen")


def pytest_sessionfinish(session: pytest.Session) -> None:
    if (file := session.config.getoption("--seen")) is not None:
        seen = session.config.pluginmanager.get_plugin("seen")
        assert isinstance(seen, Seen)
        file.write_text(json.dumps(asdict(seen)))
