"""Image archives in the format of the Open Container Initiative, made of folders and files.

Called by image.py. Entries carry no time and no owner, so the same content has the same digest.
"""

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MEDIA = "application/vnd.oci.image"


@dataclass(frozen=True, slots=True)
class Layer:
    """An uncompressed archive: it is unpacked on this very machine, minutes after it was made."""

    path: Path
    digest: str
    size: int

    @classmethod
    def of(cls, path: Path) -> "Layer":
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return cls(path, f"sha256:{digest}", path.stat().st_size)


def pack(target: Path, files: Mapping[str, Path], *, links: Mapping[str, str] = {},
         folders: Mapping[str, int] = {}, texts: Mapping[str, str] = {}) -> Layer:  # fmt: skip
    """A layer of these files, links, empty folders (with their mode) and small texts."""
    half = target.with_suffix(".half")
    with tarfile.open(half, "w", bufsize=1 << 20) as archive:
        for name, mode in folders.items():
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, mode
            archive.addfile(entry)
        for name, text in texts.items():
            _add(archive, name, text.encode())
        for name in sorted(files):
            executable = files[name].stat().st_mode & 0o100
            _add(archive, name, files[name].read_bytes(), mode=0o755 if executable else 0o644)
        for name, goal in links.items():
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, goal
            archive.addfile(entry)
    half.replace(target)
    return Layer.of(target)


def write(target: Path, tag: str, layers: Sequence[Layer], config: Mapping[str, Any], *,
          without: Sequence[Layer] = ()) -> str:  # fmt: skip
    """An archive that `ctr images import` takes; answers the digest of its manifest. Layers that
    who imports it has already may be left out."""
    blobs: dict[str, bytes] = {}

    def blob(content: Mapping[str, Any], kind: str) -> dict[str, Any]:
        data = json.dumps(content, sort_keys=True).encode()
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        blobs[digest] = data
        return {"mediaType": f"{MEDIA}.{kind}.v1+json", "digest": digest, "size": len(data)}

    image = blob(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": dict(config),
            "rootfs": {"type": "layers", "diff_ids": [layer.digest for layer in layers]},
        },
        "config",
    )
    listed = [
        {"mediaType": f"{MEDIA}.layer.v1.tar", "digest": layer.digest, "size": layer.size}
        for layer in layers
    ]
    manifest = blob(
        {"schemaVersion": 2, "mediaType": f"{MEDIA}.manifest.v1+json", "config": image,
         "layers": listed}, "manifest",
    )  # fmt: skip
    named = {**manifest, "annotations": {"io.containerd.image.name": tag}}
    index = json.dumps({"schemaVersion": 2, "manifests": [named]}).encode()
    half = target.with_suffix(".half")
    with tarfile.open(half, "w", bufsize=1 << 20) as archive:
        _add(archive, "oci-layout", b'{"imageLayoutVersion": "1.0.0"}')
        _add(archive, "index.json", index)
        for digest, data in blobs.items():
            _add(archive, f"blobs/sha256/{digest[7:]}", data)
        for layer in layers:
            if layer in without:
                continue
            entry = tarfile.TarInfo(f"blobs/sha256/{layer.digest[7:]}")
            entry.size = layer.size
            with layer.path.open("rb") as file:
                archive.addfile(entry, file)
    half.replace(target)
    return str(manifest["digest"])


def _add(archive: tarfile.TarFile, name: str, data: bytes, *, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), mode
    archive.addfile(entry, io.BytesIO(data))
