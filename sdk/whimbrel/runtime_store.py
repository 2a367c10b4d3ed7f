"""The region's object store as one attempt of a task sees it: fresh keys to write, absolute
addresses to read.

Used by `runtime_worker.py` for files, large outputs, logs and checkpoints (in a pod that is
`runtime_order.py`). obstore is imported at the first use, in the worker and never before the fork:
it brings threads.
"""

import hashlib
import re
import secrets
import tempfile
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlsplit

from whimbrel.spec import Artifact

if TYPE_CHECKING:
    from obstore.store import ObjectStore

_CHUNK = 8 * 1024 * 1024
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


class UnreadableInput(OSError):
    """An artifact that an attempt reads can't be had from where it is said to lie."""

    def __init__(self, uri: str, why: str) -> None:
        super().__init__(f"can't read {uri}: {why}")
        self.uri = uri


class StoreFull(OSError):
    """The region's store takes no more bytes, or none at all."""


def open_store(url: str) -> "ObjectStore":
    """The store at a root such as `file:///data/us-east/store` or `s3://bucket/prefix`."""
    from obstore.store import LocalStore, from_url

    parts = urlsplit(url)
    if parts.scheme == "file":
        return LocalStore(unquote(parts.path))
    return from_url(url)


def locate(uri: str) -> tuple["ObjectStore", str]:
    """The store that holds an object, and its path in there. ValueError when it is no address of an
    object."""
    from obstore.store import LocalStore, from_url

    parts = urlsplit(uri)
    path = unquote(parts.path).lstrip("/")
    if not parts.scheme or not path:
        raise ValueError(f"{uri!r} is not the address of an object")
    if parts.scheme == "file":
        return LocalStore(), path
    return from_url(f"{parts.scheme}://{parts.netloc}"), path


def name_of(uri: str) -> str:
    """The file's name for a consumer's copy; an address whose key says nothing of it has it behind
    a "#". Anybody may have written an address: a name never leaves its folder."""
    parts = urlsplit(uri)
    name = PurePosixPath(unquote(parts.fragment or parts.path)).name
    return "object" if name in ("", ".", "..") else name


def address(root: str, key: str) -> str:
    return f"{root.rstrip('/')}/{quote(key)}"


def first_line(error: BaseException) -> str:
    """obstore's messages go on for pages; the first line says it."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def plain(artifact: Artifact) -> dict[str, Any]:
    """As it travels between agent and worker."""
    return {name: getattr(artifact, name) for name in Artifact.__dataclass_fields__}


def artifact_of(fields: Mapping[str, Any]) -> Artifact:
    allowed: list[str] = fields.get("allowed_regions", [])
    return Artifact(
        fields["uri"],
        fields["sha256"],
        fields["bytes"],
        fields["region"],
        fields["kind"],
        tuple(allowed),
    )


@dataclass(slots=True)
class AttemptStore:
    """`prefix` is {execution}/{node}/{attempt}/{epoch}: with a random part behind it no key is
    written twice."""

    root: str
    region: str
    prefix: str = ""
    scratch: str = ""
    _store: "ObjectStore | None" = None

    def put_bytes(self, data: bytes, *, name: str, kind: str = "file") -> Artifact:
        return self._put(data, hashlib.sha256(data).hexdigest(), len(data), name=name, kind=kind)

    def put_file(self, path: Path, *, name: str = "", kind: str = "file") -> Artifact:
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
        size = path.stat().st_size
        return self._put(path, digest.hexdigest(), size, name=name or path.name, kind=kind)

    def put_checkpoint(self, data: bytes) -> Artifact:
        return self.put_bytes(data, name="checkpoint")

    def get_bytes(self, artifact: Artifact) -> bytes:
        import obstore

        with _reading(artifact.uri):
            store, path = locate(artifact.uri)
            data = bytes(obstore.get(store, path).bytes())
        if artifact.sha256 and hashlib.sha256(data).hexdigest() != artifact.sha256:
            raise UnreadableInput(artifact.uri, "its content is not what was stored")
        return data

    def get_file(self, artifact: Artifact) -> Path:
        """A copy for this attempt; bytes that are not those of `artifact.sha256` are unreadable."""
        import obstore

        digest = hashlib.sha256()
        with _reading(artifact.uri):
            store, path = locate(artifact.uri)
            stream = obstore.get(store, path).stream(min_chunk_size=_CHUNK)
        target = self._fresh_folder() / name_of(artifact.uri)
        with target.open("wb") as file:
            chunks = iter(stream)
            while True:
                with _reading(artifact.uri):
                    chunk = next(chunks, None)
                if chunk is None:
                    break
                digest.update(chunk)
                file.write(chunk)
        if artifact.sha256 and digest.hexdigest() != artifact.sha256:
            raise UnreadableInput(artifact.uri, "its content is not what was stored")
        return target

    def _fresh_folder(self) -> Path:
        return Path(tempfile.mkdtemp(prefix="input-", dir=self.scratch or None))

    def _put(self, data: bytes | Path, sha256: str, size: int, *, name: str, kind: str) -> Artifact:
        import obstore

        key = f"{self.prefix}/{secrets.token_hex(8)}/{_UNSAFE.sub('_', name) or 'object'}"
        try:
            if self._store is None:
                self._store = open_store(self.root)
            obstore.put(self._store, key, data)
        except (OSError, obstore.exceptions.BaseError) as error:
            raise StoreFull(f"can't write to the store {self.root}: {first_line(error)}") from error
        return Artifact(address(self.root, key), sha256, size, self.region, kind)


@contextmanager
def _reading(uri: str) -> Generator[None]:
    import obstore

    try:
        yield
    except (OSError, ValueError, obstore.exceptions.BaseError) as error:
        raise UnreadableInput(uri, first_line(error)) from error
