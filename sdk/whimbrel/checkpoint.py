"""Save and resume inside a task: bytes that the next try of the node finds, also in another region.

Read by user code through `current_context().checkpoint`; the runner gives the backend that keeps
them.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from whimbrel.archive import Limits, pack, unpack
from whimbrel.errors import InvalidInput

_FILE, _FOLDER = "file", "folder"


class Interrupted(BaseException):
    """The run is asked to move and its checkpoint is safe: this try ends here, the next one resumes
    elsewhere. It costs none of the task's retries.

    Not an Exception, so that `except Exception` in user code does not keep a task on a machine that
    is about to go; `finally` runs as ever.
    """


def never() -> bool:
    return False


class CheckpointBackend(Protocol):
    def load(self) -> bytes | None:
        """The newest one of this node, None when there is none."""
        ...

    def store(self, data: bytes) -> None: ...


@dataclass(slots=True)
class Memory:
    """Kept as long as this object: tries of one local run."""

    data: bytes | None = None

    def load(self) -> bytes | None:
        return self.data

    def store(self, data: bytes) -> None:
        self.data = data


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """`write` replaces the whole checkpoint; a failed write raises and leaves the old one.

    Once the machine has to be left (`Context.migration_requested`), the next `write` or `save`
    stores and then ends the try by raising `Interrupted`.
    """

    backend: CheckpointBackend = field(default_factory=Memory)
    moving: Callable[[], bool] = never

    def read(self) -> bytes | None:
        return self.backend.load()

    def write(self, data: bytes) -> None:
        self.backend.store(bytes(data))
        if self.moving():
            raise Interrupted("asked to move; saved a checkpoint")

    def save(self, path: str | os.PathLike[str]) -> None:
        """A file or a whole folder."""
        import tempfile

        source = Path(path)
        if source.is_dir():
            found = (item for item in source.rglob("*") if item.is_file())
            files = [(f"{_FOLDER}/{item.relative_to(source).as_posix()}", item) for item in found]
        elif source.is_file():
            files = [(_FILE, source)]
        else:
            raise InvalidInput(f"there is nothing to save at {source}")
        with tempfile.TemporaryFile() as archive:
            pack(files, archive)
            archive.seek(0)
            self.write(archive.read())

    def restore(self, path: str | os.PathLike[str]) -> bool:
        """Puts what `save` wrote at `path`, in place of what is there. False when there is none."""
        import tempfile

        data = self.read()
        if data is None:
            return False
        target = Path(path)
        with tempfile.TemporaryDirectory(dir=target.parent) as fresh:
            unpack(data, Path(fresh, "new"), limits=Limits())
            if (file := Path(fresh, "new", _FILE)).is_file():
                file.replace(target)
                return True
            folder = Path(fresh, "new", _FOLDER)
            folder.mkdir(exist_ok=True)  # an empty one has no entry
            if target.exists():
                target.rename(Path(fresh, "old"))
            folder.rename(target)
        return True
