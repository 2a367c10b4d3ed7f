"""The built wheel in a bare environment: no checkout on the path, `whimbrel up`, and a run."""

import json
import os
import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = """\
from whimbrel import task, workflow


@task
def double(x: int) -> int:
    return 2 * x


@workflow
def doubled(x: int) -> int:
    return double(x=x)
"""


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**clean, **environment},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, f"{command}: {done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[Path]:
    """The `bin` folder of an environment that holds the wheel and what it asks for."""
    dist = tmp_path / "dist"
    run(sys.executable, "-m", "build", "--wheel", "--outdir", dist, ROOT, cwd=tmp_path)
    (wheel,) = dist.glob("*.whl")
    venv.create(tmp_path / "bare", with_pip=True)
    programs = tmp_path / "bare" / "bin"
    run(programs / "pip", "install", "-q", f"{wheel}[up]", cwd=tmp_path)
    yield programs
    run(programs / "whimbrel", "down", "--data-dir", tmp_path / "data", cwd=tmp_path)


def test_the_wheel_brings_up_a_federation(bare: Path, tmp_path: Path) -> None:
    packages = next((bare.parent / "lib").glob("python*/site-packages"))
    assert not (packages / "router").exists(), "a wheel must not install a package called router"
    data = tmp_path / "data"
    run(bare / "whimbrel", "up", "--data-dir", data, "--ports", "auto", "--detach", cwd=tmp_path)
    endpoint = json.loads((data / "sandbox.json").read_text())["endpoint"]
    (tmp_path / "doubling.py").write_text(PROGRAM)
    answer = run(
        bare / "whimbrel", "run", "doubling.py", "doubled", "--remote", "--wait", "-o", "json",
        "--x", "21", cwd=tmp_path, WHIMBREL_ENDPOINT=endpoint,
    )  # fmt: skip
    execution = json.loads(answer)
    assert execution["phase"] == "SUCCEEDED"
    assert execution["outputs"] == {"o0": 42}
