"""`File` and `Directory`: what a task hands on by reference, and the store that holds the bytes.

A producer returns `File(path)`; `values.py` has it uploaded. A consumer gets one that is fetched at
its first use.
"""

import hashlib
import os
from dataclasses import asdict
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol, Self, cast

from whimbrel.archive import Limits, pack, unpack
from whimbrel.errors import InvalidInput
from whimbrel.spec import ARTIFACT_KEY, Artifact

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler
    from pydantic_core import CoreSchema
    from pydantic_core.core_schema import SerializationInfo, ValidationInfo


class Store(Protocol):
    """Where bytes go and come from while a task runs; what `put_file` keeps never changes."""

    def put_file(self, path: Path, *, kind: str = "file") -> Artifact: ...

    def get_file(self, artifact: Artifact) -> Path:
        """A private copy on this machine."""
        ...


class NoStore:
    """Definitions and graphs have no store: a constant with bytes in it can't be part of them."""

    def put_file(self, path: Path, *, kind: str = "file") -> Artifact:
        raise ValueError(
            f"{kind} {path} can't be a default or a constant of a graph: "
            "make it an input of the workflow, or return it from a task"
        )

    def get_file(self, artifact: Artifact) -> Path:
        raise ValueError(f"{artifact.uri} can't be read here")


class _Reference:
    """What File and Directory share: a path, or an artifact that becomes one when asked for."""

    _kind = "file"

    def __init__(self, path: str | os.PathLike[str]) -> None:
        text = os.fspath(path)
        if text.startswith("file://"):
            text = text.removeprefix("file://")
        if "://" in text:
            raise InvalidInput(
                f"{type(self).__name__}({text!r}): only a path on this machine can be given",
                remedy="read the address inside a task and return what it wrote",
            )
        self._path: str = text
        self._artifact: Artifact | None = None
        self._store: Store | None = None

    @classmethod
    def of(cls, artifact: Artifact, store: Store) -> Self:
        reference = cls.__new__(cls)
        reference._path, reference._artifact, reference._store = "", artifact, store
        return reference

    @property
    def artifact(self) -> Artifact | None:
        """Where the bytes lie; None for what has not been handed on yet."""
        return self._artifact

    @property
    def path(self) -> str:
        """A path on this machine; fetches the bytes at the first call."""
        if not self._path and self._artifact and self._store:
            self._path = str(self._arrived(self._store.get_file(self._artifact)))
        return self._path

    def __fspath__(self) -> str:
        return self.path

    def __repr__(self) -> str:
        where = self._artifact.uri if self._artifact else self._path
        return f"{type(self).__name__}({where!r})"

    def _arrived(self, path: Path) -> Path:
        return path

    def _put(self, store: Store) -> Artifact:
        raise NotImplementedError

    def _to_json(self, info: "SerializationInfo[Any]") -> dict[str, Any]:
        context = cast("dict[str, Any]", info.context or {})
        artifact = self._artifact or self._put(context.get("store") or NoStore())
        found = context.get("artifacts")
        if found is not None:
            found.append(artifact)
        return {
            ARTIFACT_KEY: {
                **asdict(artifact),
                "allowed_regions": list(artifact.allowed_regions),
            }
        }

    @classmethod
    def _validate(cls, value: Any, info: "ValidationInfo[Any]") -> Self:
        match value:
            case _Reference():
                if isinstance(value, cls):
                    return value
            case {"$artifact": fields} if len(value) == 1 and isinstance(fields, dict):
                context = cast("dict[str, Any]", info.context or {})
                store = context.get("store") or NoStore()
                return cls.of(_artifact(cast("dict[str, Any]", fields), cls._kind), store)
            case str() | os.PathLike() if info.mode == "python":
                return cls(cast("str | os.PathLike[str]", value))
            case _:
                pass
        raise ValueError(f"a {cls.__name__} is needed, not {type(value).__name__}")

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: Any, handler: "GetCoreSchemaHandler"
    ) -> "CoreSchema":
        from pydantic_core import core_schema

        return core_schema.with_info_plain_validator_function(
            cls._validate,
            serialization=core_schema.plain_serializer_function_ser_schema(
                cls._to_json, info_arg=True
            ),
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: Any, handler: Any) -> dict[str, Any]:
        return {
            "type": "object",
            "title": cls.__name__,
            "x-artifact": cls._kind,
            "properties": {ARTIFACT_KEY: {"type": "object"}},
            "required": [ARTIFACT_KEY],
        }


class File(_Reference):
    """One file. `File(path)` hands it on; `.path` and `open()` read it where the consumer runs."""

    def open(self, mode: str = "r", *, encoding: str | None = None) -> IO[Any]:
        encoding = encoding or (None if "b" in mode else "utf-8")
        return open(self.path, mode, encoding=encoding)

    def _put(self, store: Store) -> Artifact:
        if not Path(self._path).is_file():
            raise ValueError(f"there is no file {self._path}")
        return store.put_file(Path(self._path))


class Directory(_Reference):
    """A folder, as one object.

    Equal trees are equal values. Links and empty folders are left out.
    """

    _kind = "directory"

    def _put(self, store: Store) -> Artifact:
        import tempfile

        root = Path(self._path)
        if not root.is_dir():
            raise ValueError(f"there is no directory {self._path}")
        files = [
            (path.relative_to(root).as_posix(), path)
            for path in root.rglob("*")
            if path.is_file() and not path.is_symlink()
        ]
        with tempfile.NamedTemporaryFile(suffix=".tar") as archive:
            pack(files, archive.file)
            archive.flush()
            return store.put_file(Path(archive.name), kind=self._kind)

    def _arrived(self, path: Path) -> Path:
        target = path.with_name(f"{path.name}.d")
        unpack(path, target, limits=Limits())
        return target


def _artifact(fields: dict[str, Any], kind: str) -> Artifact:
    match fields:
        case {"uri": str(uri), "sha256": str(sha256), "bytes": int(size), "region": str(region)}:
            found = fields.get("kind", kind)
            if found != kind:
                raise ValueError(f"a {kind} is needed, this is a {found}")
            allowed = tuple(str(item) for item in fields.get("allowed_regions", ()))
            return Artifact(uri, sha256, size, region, kind, allowed)
        case _:
            raise ValueError("an artifact has uri, sha256, bytes and region")


def digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
