"""Folders as one object: a tar with the same bytes for the same content, and its safe unpacking.

Used by `bundle.py` for code and by `artifacts.py` for directories. Not compressed: the bytes don't
depend on a zlib version, and there is nothing that blows up when it is unpacked.
"""

import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING

from whimbrel.errors import InvalidInput, TooLarge

if TYPE_CHECKING:
    import tarfile


@dataclass(frozen=True, slots=True)
class Limits:
    """What an archive may hold. Too little refuses honest ones, too much fills the disk."""

    total_bytes: int = 1 << 40
    entries: int = 1_000_000


def pack(files: Iterable[tuple[str, Path]], into: IO[bytes]) -> None:
    """Writes (name, file) pairs ordered by name; times, owners and modes are left out."""
    import tarfile  # here and below: not a cost of `import whimbrel`

    with tarfile.open(fileobj=into, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, path in sorted(files):
            about = tarfile.TarInfo(name)
            about.size = path.stat().st_size
            about.mode = 0o644
            with path.open("rb") as content:
                archive.addfile(about, content)


def unpack(source: bytes | Path, target: Path, *, limits: Limits) -> None:
    """Only regular files and folders below `target`; the whole archive is checked before a write.

    Raises InvalidInput for links, devices, absolute names, `..` or a damaged archive, TooLarge over
    the limits.
    """
    import tarfile

    try:
        with (
            io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as stream,
            tarfile.open(fileobj=stream, mode="r:") as archive,
        ):
            members = _checked(archive, limits)
            target.mkdir(parents=True, exist_ok=True)
            for member in members:
                path = target / member.name
                if member.isdir():
                    path.mkdir(parents=True, exist_ok=True)
                    continue
                path.parent.mkdir(parents=True, exist_ok=True)
                content = archive.extractfile(member)
                with path.open("xb") as file:
                    while content is not None and (chunk := content.read(1 << 20)):
                        file.write(chunk)
    except tarfile.TarError as cause:
        raise InvalidInput(f"not an archive, or a damaged one: {cause}") from cause
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as cause:
        raise InvalidInput(f"the archive names a path twice: {cause.filename}") from cause


def _checked(archive: "tarfile.TarFile", limits: Limits) -> "list[tarfile.TarInfo]":
    members: list[tarfile.TarInfo] = []
    total = 0
    for member in archive:
        if len(members) >= limits.entries:
            raise TooLarge(f"the archive holds more than {limits.entries} files")
        name = PurePosixPath(member.name)
        if name.is_absolute() or ".." in name.parts or "\\" in member.name or not name.parts:
            raise InvalidInput(f"the archive would write outside its folder: {member.name!r}")
        if not (member.isreg() or member.isdir()) or member.issparse():
            raise InvalidInput(f"the archive holds a link or a device: {member.name!r}")
        total += member.size
        if total > limits.total_bytes:
            raise TooLarge(f"the archive unpacks to more than {limits.total_bytes} bytes")
        members.append(member)
    return members
