"""The README is true: its program and its commands are run as they stand there."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.federation import Federation

README = (Path(__file__).parents[2] / "README.md").read_text()
PROGRAM = re.search(r"```python\n(.*?)```", README, re.DOTALL)
COMMANDS = re.findall(r"^whimbrel (.+?)\s+#", README, re.MULTILINE)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    assert PROGRAM is not None
    (tmp_path / "squares.py").write_text(PROGRAM[1])
    return tmp_path


def whimbrel(*arguments: str, cwd: Path, endpoint: str = "") -> str:
    options = ["--endpoint", endpoint] if endpoint else []
    done = subprocess.run(
        [sys.executable, "-m", "whimbrel.cli", *arguments, *options],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, f"{arguments}: {done.stdout}\n{done.stderr}"
    return done.stdout


def test_the_first_command_runs_the_program_here(folder: Path) -> None:
    first = next(command for command in COMMANDS if command.startswith("run"))
    assert "41" in whimbrel(*first.split(), cwd=folder)


def test_the_other_commands_follow_a_run_in_the_federation(
    folder: Path, federation: Federation
) -> None:
    endpoint = federation.sandbox["endpoint"]
    remote = next(command for command in COMMANDS if "--remote" in command)
    answer = whimbrel(*remote.split(), "-o", "json", cwd=folder, endpoint=endpoint)
    execution = json.loads(answer)
    assert (execution["phase"], execution["outputs"]) == ("SUCCEEDED", {"o0": 25})
    for command in (c for c in COMMANDS if c.endswith("NAME")):
        arguments = command.replace("NAME", execution["name"]).split()
        assert execution["cluster"] in whimbrel(*arguments, cwd=folder, endpoint=endpoint)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command: str, tmp_path: Path) -> None:
    words = [word for word in command.split() if re.fullmatch(r"[a-z]+", word)]
    nouns = words[: 2 if words[0] in ("execution", "sandbox", "cluster") else 1]
    assert "Example" in whimbrel(*nouns, "--help", cwd=tmp_path)
