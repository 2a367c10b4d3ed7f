"""Exit codes and messages of the command line, as a person gets them."""

from pathlib import Path

import pytest
from whimbrel.cli.app import main

from tests.service.test_rpc import free_address

PROGRAM = """
from whimbrel import task, workflow

@task
def double(x: int) -> int:
    return 2 * x

@workflow
def doubled(x: int, note: str = "none") -> int:
    return double(x=x)
"""


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("WHIMBREL_ENDPOINT", raising=False)
    return tmp_path


@pytest.fixture
def program(elsewhere: Path) -> str:
    name = f"program_{abs(hash(elsewhere))}.py"
    (elsewhere / name).write_text(PROGRAM)
    return name


def test_a_local_run_prints_its_outputs(program: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", program, "doubled", "--x", "21"]) == 0
    assert capsys.readouterr().out == "o0 = 42\n"


def test_inputs_of_a_document_and_json_as_the_result(
    program: str, elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (elsewhere / "inputs.json").write_text('{"x": 4}')
    assert main(["run", program, "doubled", "--inputs", "inputs.json", "-o", "json"]) == 0
    assert '"o0": 8' in capsys.readouterr().out


def test_help_lists_the_inputs(program: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", program, "doubled", "--help"]) == 0
    text = capsys.readouterr().out
    assert "--x INT" in text
    assert "--note TEXT" in text


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run", "PROGRAM", "doubled", "--x", "two"], "--x 'two' is not int"),
        (["run", "PROGRAM", "doubled"], "the input x is missing"),
        (["run", "PROGRAM", "doubled", "--x", "1", "--z", "1"], "no input 'z'"),
        (["run", "PROGRAM", "nothing"], "no workflow 'nothing'"),
        (["run", "absent.py", "x"], "can't be read"),
        (["run", "PROGRAM", "doubled", "--x", "1", "--wait"], "--remote"),
        (["run", "PROGRAM", "doubled", "--x", "1", "--remote", "--mode", "maybe"], "no mode"),
        (["run", "PROGRAM", "doubled", "--inputs", "absent.json"], "absent.json"),
        (["run"], "which file"),
        (["up", "--preset", "moon"], "no preset"),
        (["up", "--region", "Up Here"], "name of a region"),
        (["execution", "list", "--phase", "DONE"], "no phase"),
        (["execution", "list", "--limit", "x"], "--limit"),
        (["execution", "get"], "NAME"),
        (["nonsense"], "nonsense"),
    ],
)
def test_bad_input_is_one_message_and_exit_2(
    arguments: list[str], says: str, program: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([program if word == "PROGRAM" else word for word in arguments]) == 2
    captured = capsys.readouterr()
    assert says in captured.err
    assert "Traceback" not in captured.err
    assert captured.out == ""


@pytest.mark.parametrize(
    "arguments",
    [["execution", "get", "x"], ["cluster", "list"], ["run", "PROGRAM", "doubled", "--x", "1",
     "--remote"]],
)  # fmt: skip
def test_nobody_at_the_endpoint_is_exit_3(
    arguments: list[str], program: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [program if word == "PROGRAM" else word for word in arguments]
    assert main([*words, "--endpoint", free_address()]) == 3
    error = capsys.readouterr().err
    assert "no whimbrel answers at" in error
    assert "Traceback" not in error


def test_a_module_that_raises_is_a_users_mistake_with_its_line(
    elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (elsewhere / "raises_on_import.py").write_text("x = 1\n1 / 0\n")
    assert main(["run", "raises_on_import.py", "x"]) == 2
    error = capsys.readouterr().err
    assert "raises_on_import.py:2" in error.replace("\n", "")
    assert "Traceback" not in error


def test_faults_without_a_federation(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sandbox", "kill", "us-east"]) == 3
    assert "whimbrel up" in capsys.readouterr().err


def test_down_of_a_folder_that_is_not_ours_removes_nothing(elsewhere: Path) -> None:
    (elsewhere / "thesis").mkdir()
    assert main(["down", "--purge", "--data-dir", "thesis"]) == 2
    assert (elsewhere / "thesis").exists()
