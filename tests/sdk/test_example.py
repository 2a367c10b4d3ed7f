"""The example runs here as it is, and compiles to a graph with a fan-out and a join."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
from whimbrel.bundle import load_file, make_bundle
from whimbrel.compiler import compile_workflow

EXAMPLE = Path(__file__).parents[2] / "examples" / "digits.py"


def test_digits_compile_without_their_libraries_loaded() -> None:
    module = load_file(EXAMPLE)
    bundle, _ = make_bundle(EXAMPLE)
    made = compile_workflow(module.digits, bundle=bundle)
    assert made.name == "digits.digits"
    assert len(made.nodes) >= 8
    assert sum(node.task == "digits.train" for node in made.nodes) >= 4
    assert made.task("digits.train").entry_point == "digits:train"


@pytest.mark.skipif(importlib.util.find_spec("sklearn") is None, reason="needs scikit-learn")
def test_digits_run_here() -> None:
    code = (
        "import digits; made = digits.digits(rounds=5);"
        "print(made.best.accuracy, made.confusion_matrix.path)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=EXAMPLE.parent,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    accuracy, picture = done.stdout.splitlines()[-1].split()
    assert float(accuracy) > 0.9
    assert Path(picture).read_bytes().startswith(b"\x89PNG")
