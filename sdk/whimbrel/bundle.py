"""The user's code as one object named by its digest, the way back, and the import of a user's file.

Called by `whimbrel run` and `register` (make, load) and by the agent (extract). The archive is a
plain tar with nothing but names and contents, so the same code has the same digest on every
machine.
"""

import importlib
import io
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType

from whimbrel.archive import Limits, pack, unpack
from whimbrel.errors import InvalidInput, TooLarge
from whimbrel.spec import sha256

LIMIT_BYTES = 32 << 20
"""Of a bundle. Less refuses honest projects; more makes every first start in a region slow."""

UNPACKED = Limits(total_bytes=LIMIT_BYTES, entries=20_000)
_SKIPPED = {"__pycache__", "node_modules", "site-packages", "venv", "env", "build", "dist"}


def make_bundle(*paths: str | os.PathLike[str]) -> tuple[str, bytes]:
    """(sha256, archive) of a file's folder or package, or of folders as they are given.

    Raises InvalidInput for what can't be read, TooLarge over LIMIT_BYTES, naming the biggest files.
    """
    files: dict[str, Path] = {}
    for item in paths:
        path = Path(item).resolve()
        root, names = (path, None) if path.is_dir() else module_of(path)
        for name, file in _python_files(root, package=names):
            if len(files) >= UNPACKED.entries:
                raise TooLarge(
                    f"there are more than {UNPACKED.entries} Python files below {root}",
                    remedy="move the workflow into a folder of its own",
                )
            if files.setdefault(name, file) != file:
                raise InvalidInput(f"{file} and {files[name]} would both be {name} in the bundle")
    try:
        sizes = {name: file.stat().st_size for name, file in files.items()}
        if sum(sizes.values()) > LIMIT_BYTES:
            raise _too_large(sizes)
        archive = io.BytesIO()
        pack(files.items(), archive)
    except OSError as cause:
        raise InvalidInput(f"{cause.filename} can't be read: {cause.strerror}") from cause
    data = archive.getvalue()
    if len(data) > LIMIT_BYTES:
        raise _too_large(sizes)
    return sha256(data), data


def extract_bundle(data: bytes | Path, target: Path) -> None:
    """Unpacks into `target`. Raises InvalidInput or TooLarge for what `make_bundle` never makes."""
    unpack(data, target, limits=UNPACKED)


def module_of(path: Path) -> tuple[Path, str]:
    """The folder to put on the path for a Python file, and the module's dotted name from there."""
    root, parts = path.parent, [path.stem]
    while (root / "__init__.py").is_file():
        parts.insert(0, root.name)
        root = root.parent
    return root, ".".join(parts)


def load_file(path: str | os.PathLike[str]) -> ModuleType:
    """Imports a user's file under the name a region will use.

    InvalidInput says what is wrong, and where.
    """
    file = Path(path).resolve()
    try:
        text = file.read_bytes()
    except OSError as cause:
        raise InvalidInput(f"{path} can't be read: {cause.strerror}") from cause
    if file.suffix != ".py" or not file.stem.isidentifier():
        raise InvalidInput(
            f"{path} can't be imported", remedy="its name must be a Python name with .py behind it"
        )
    try:
        compile(text, str(file), "exec", dont_inherit=True)
    except SyntaxError as cause:
        place = f"{file}:{cause.lineno or 1}"
        raise InvalidInput(f"not Python: {cause.msg}", place=place) from None
    except ValueError as cause:
        raise InvalidInput(f"not Python: {cause}", place=str(file)) from None
    root, name = module_of(file)
    known = sys.modules.get(name)
    if known is not None and getattr(known, "__file__", None) != str(file):
        where = getattr(known, "__file__", None) or "Python itself"
        raise InvalidInput(
            f"{path} is called like a module that is in use: {where}", remedy="rename the file"
        )
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    importlib.invalidate_caches()
    try:
        module = importlib.import_module(name)
    except InvalidInput:
        raise
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a module may also call sys.exit()
        raise InvalidInput(
            f"importing {file.name} failed: {type(error).__name__}: {error}",
            remedy="a module must import without errors; put work into tasks",
            place=_innermost(error, root) or str(file),
        ) from error
    if getattr(module, "__file__", None) != str(file):
        raise InvalidInput(
            f"{path}: another module {name!r} comes first: {module.__file__}",
            remedy="rename the file",
        )
    return module


def _innermost(error: BaseException, root: Path) -> str:
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno or 1}"
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if frame.filename.startswith(f"{root}{os.sep}")]
    return f"{own[-1].filename}:{own[-1].lineno}" if own else ""


def _python_files(root: Path, *, package: str | None) -> Iterator[tuple[str, Path]]:
    """Every .py below `root`; of a package's file the package alone, of a loose file its folder."""
    start = root / package.split(".")[0] if package and "." in package else root
    for folder, folders, names in os.walk(start):
        here = Path(folder)
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".")
            and name not in _SKIPPED
            and not (here / name / "pyvenv.cfg").exists()
        )
        for name in sorted(names):
            file = here / name
            if name.endswith(".py") and not name.startswith(".") and file.is_file():
                yield file.relative_to(root).as_posix(), file


def _too_large(sizes: dict[str, int]) -> TooLarge:
    biggest: Sequence[str] = sorted(sizes, key=lambda name: -sizes[name])[:5]
    named = ", ".join(f"{name} ({sizes[name] / (1 << 20):.1f} MiB)" for name in biggest)
    return TooLarge(
        f"the code is larger than {LIMIT_BYTES >> 20} MiB; the biggest files: {named}",
        remedy="move the workflow into a folder of its own, or take data out of .py files",
    )
