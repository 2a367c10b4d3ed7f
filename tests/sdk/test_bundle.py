"""Code archives.

The same for the same code, unpacked only into their folder; files imported with a clear answer.
"""

import io
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from whimbrel.archive import Limits, unpack
from whimbrel.bundle import LIMIT_BYTES, extract_bundle, load_file, make_bundle
from whimbrel.errors import InvalidInput, TooLarge


@pytest.fixture(autouse=True)
def _clean_imports() -> Iterator[None]:
    path, modules = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        del sys.modules[name]


def project(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


def names(data: bytes) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return archive.getnames()


def archive(*members: tarfile.TarInfo) -> bytes:
    into = io.BytesIO()
    with tarfile.open(fileobj=into, mode="w") as made:
        for member in members:
            made.addfile(member, io.BytesIO(b"x" * member.size))
    return into.getvalue()


def member(
    name: str, kind: bytes = tarfile.REGTYPE, link: str = "", size: int = 0
) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname, made.size = kind, link, size
    return made


CODE = {"flow.py": "import steps", "steps.py": "X = 1", "deep/__init__.py": "", "notes.txt": "no"}
SKIPPED = {
    ".hidden/a.py": "",
    "__pycache__/b.py": "",
    "venv/c.py": "",
    "mine/pyvenv.cfg": "",
    "mine/d.py": "",
    ".e.py": "",
}


def test_a_file_brings_its_folder_and_nothing_else(tmp_path: Path) -> None:
    root = project(tmp_path, CODE | SKIPPED)
    _, data = make_bundle(root / "flow.py")
    assert names(data) == ["deep/__init__.py", "flow.py", "steps.py"]


def test_a_file_of_a_package_brings_the_package(tmp_path: Path) -> None:
    files = {
        "app/__init__.py": "",
        "app/sub/__init__.py": "",
        "app/sub/flow.py": "",
        "other.py": "",
    }
    _, data = make_bundle(project(tmp_path, files) / "app/sub/flow.py")
    assert names(data) == ["app/__init__.py", "app/sub/__init__.py", "app/sub/flow.py"]


def test_the_same_code_is_the_same_bundle(tmp_path: Path) -> None:
    first = make_bundle(project(tmp_path / "a", CODE) / "flow.py")
    second = project(tmp_path / "b", dict(reversed(CODE.items())))
    (second / "flow.py").touch()
    (second / "flow.py").chmod(0o755)
    assert make_bundle(second / "flow.py") == first
    (second / "flow.py").write_text("import steps # changed")
    assert make_bundle(second / "flow.py")[0] != first[0]


def test_there_and_back(tmp_path: Path) -> None:
    _, data = make_bundle(project(tmp_path / "a", CODE))
    extract_bundle(data, tmp_path / "out")
    assert (tmp_path / "out/steps.py").read_text() == "X = 1"
    kept = tmp_path / "kept.tar"
    kept.write_bytes(data)
    extract_bundle(kept, tmp_path / "again")
    assert (tmp_path / "again/deep/__init__.py").read_text() == ""


def test_a_bundle_over_the_limit_names_the_biggest(tmp_path: Path) -> None:
    root = project(tmp_path, {"flow.py": ""})
    with (root / "huge.py").open("wb") as file:
        file.truncate(LIMIT_BYTES + 1)
    with pytest.raises(TooLarge, match=r"huge\.py \(32\.0 MiB\)"):
        make_bundle(root / "flow.py")


@pytest.mark.parametrize(
    "bad",
    [
        member("../out.py"),
        member("/etc/out.py"),
        member("a/../../out.py"),
        member("a\\..\\out.py"),
        member("link", tarfile.SYMTYPE, "/etc/passwd"),
        member("link", tarfile.LNKTYPE, "good.py"),
        member("device", tarfile.CHRTYPE),
        member("pipe", tarfile.FIFOTYPE),
        member("good.py"),
        member("good.py/below.py"),
    ],
    ids=lambda bad: bad.name + bad.linkname,
)
def test_hostile_archives(tmp_path: Path, bad: tarfile.TarInfo) -> None:
    with pytest.raises(InvalidInput):
        extract_bundle(archive(member("good.py"), bad), tmp_path / "in")
    assert {path.name for path in tmp_path.rglob("*.py")} <= {"good.py"}


def test_an_archive_over_its_limits(tmp_path: Path) -> None:
    many = archive(*(member(f"{number}.py") for number in range(4)))
    with pytest.raises(TooLarge, match="more than 3 files"):
        unpack(many, tmp_path / "a", limits=Limits(entries=3))
    big = archive(member("a.py", size=6), member("b.py", size=5))
    with pytest.raises(TooLarge, match="10 bytes"):
        unpack(big, tmp_path / "b", limits=Limits(total_bytes=10))
    assert not (tmp_path / "a").exists()
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("data", [b"", b"no archive at all" * 100])
def test_no_archive(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(InvalidInput):
        extract_bundle(data, tmp_path / "in")


def test_a_truncated_archive(tmp_path: Path) -> None:
    data = archive(member("a.py", size=2000))
    with pytest.raises(InvalidInput):
        extract_bundle(data[:1000], tmp_path / "in")


def test_a_file_is_imported_under_its_name(tmp_path: Path) -> None:
    root = project(tmp_path, {"pack_a/__init__.py": "", "pack_a/flow.py": "X = 1"})
    assert load_file(root / "pack_a/flow.py").__name__ == "pack_a.flow"


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("x = 1\nif x:\n", 2, "not Python"),
        ("x = 1\n\n1 / 0\n", 3, "ZeroDivisionError"),
        ("import sys\nsys.exit(3)\n", 2, "SystemExit"),
        ("import broken_below\n", 2, "ValueError: deep"),
        ("import no_such_module_at_all\n", 1, "ModuleNotFoundError"),
        ("from whimbrel import task\n@task\ndef f(x): ...\n", 3, "has no type"),
    ],
)
def test_a_file_that_does_not_import(tmp_path: Path, text: str, line: int, words: str) -> None:
    root = project(tmp_path, {"bad_file.py": text, "broken_below.py": "\nraise ValueError('deep')"})
    with pytest.raises(InvalidInput) as refused:
        load_file(root / "bad_file.py")
    assert words in refused.value.message
    assert refused.value.place.endswith(f".py:{line}")
    assert "bad_file" not in sys.modules


@pytest.mark.parametrize("name", ["nowhere.py", "."])
def test_a_file_that_is_not_there(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidInput, match="can't be read"):
        load_file(tmp_path / name)


def test_a_file_that_is_no_module(tmp_path: Path) -> None:
    root = project(tmp_path, {"my-flow.py": "", "json.py": ""})
    with pytest.raises(InvalidInput, match="can't be imported"):
        load_file(root / "my-flow.py")
    with pytest.raises(InvalidInput, match="in use"):
        load_file(root / "json.py")
