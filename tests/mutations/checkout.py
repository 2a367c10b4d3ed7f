"""A copy of the checkout in which guards may be taken out; the working tree is never written.

Made by `__main__.py`, one for each worker; runs pytest with the packages of the copy, which
`witness.py` checks in that process.
"""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.mutations.mutation import Mutation, source
from tests.mutations.witness import Seen

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Ran:
    """`seen` None: it did not come to an end within the limit. `output` is pytest's."""

    code: int
    seen: Seen | None
    output: str


class Checkout:
    def __init__(self, folder: Path, *, environment: dict[str, str] | None = None) -> None:
        """`environment` is added to that of the tests."""
        self.root = folder
        self._more = environment or {}
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT, check=True, capture_output=True, text=True,
        ).stdout  # fmt: skip
        for name in filter(None, listed.split("\0")):
            if (ROOT / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(ROOT / name, folder / name)

    @contextmanager
    def without(self, mutation: Mutation) -> Generator[None]:
        """The copy has not this guard meanwhile."""
        path = self.root / mutation.file
        text = source(self.root, mutation.file)
        path.write_text(mutation.apply(text))
        try:
            yield
        finally:
            path.write_text(text)

    def run(self, tests: Sequence[str], *, seconds: float, first: bool) -> Ran:
        """`first`: only to the first failure."""
        report = self.root / "seen.json"
        report.unlink(missing_ok=True)
        command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.mutations.witness"]
        command += ["-p", "no:cacheprovider", "--seen", str(report), *(["-x"] if first else [])]
        path = [str(self.root), str(self.root / "sdk"), os.environ.get("PYTHONPATH", "")]
        # No compiled code: of a file that is changed and put back within a second it may be old.
        more = {"PYTHONPATH": os.pathsep.join(filter(None, path)), "PYTHONDONTWRITEBYTECODE": "1"}
        process = subprocess.Popen(
            [*command, *tests], cwd=self.root, env=os.environ | self._more | more, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        try:
            output, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            end_group(process)
            output, _ = process.communicate()
            return Ran(-1, None, output)
        end_group(process)
        return Ran(process.returncode, Seen.read(report), output)


def end_group(process: subprocess.Popen[str]) -> None:
    """Also what it has started: without its guard a test may leave a task that nothing ends."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
