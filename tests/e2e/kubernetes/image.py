"""The images of the test clusters: this machine's interpreter, this checkout's SDK and agent.

Called by cluster.py; answers archives for node.py to import. No registry, no base image: one cached
layer holds the interpreter and the libraries, a second, small one the SDK as it is now. The agent's
image (agent_in_cluster.py asks for it) has two more: its own libraries, and the agent as it is now.
"""

import compileall
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from py_compile import PycInvalidationMode

from tests.e2e.kubernetes.layers import Layer, pack, write
from tests.e2e.kubernetes.state import CACHE, Say, locked

TAG = "localhost/whimbrel-task:1"
AGENT = "localhost/whimbrel-agent:1"
BASE = "localhost/whimbrel-base:1"
PAUSE = "localhost/whimbrel-pause:1"
EXTRA = ("numpy", "scikit-learn", "matplotlib")
"""What examples/digits.py imports, besides the SDK's own requirements."""

CHECKOUT = Path(__file__).parents[3]
SDK = CHECKOUT / "sdk" / "whimbrel"
PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"
INTERPRETER = Path(sys.base_prefix).resolve()
LIBRARY = f"usr/local/lib/{PYTHON}"
SITE = f"{LIBRARY}/site-packages"
LEFT_OUT = {"__pycache__", "test", "tests", "idlelib", "ensurepip", "tkinter", "turtledemo",
            "lib2to3", "site-packages"}  # fmt: skip
NO_USE = {".pyc", ".pyi", ".a", ".h", ".pxd", ".pyx"}
KEPT = 2
CONFIG = {
    "User": "1000:1000",
    "Entrypoint": [f"/usr/local/bin/{PYTHON}"],
    "Env": ["PATH=/usr/local/bin:/usr/bin:/bin", "LD_LIBRARY_PATH=/usr/local/lib",
            "PYTHONUNBUFFERED=1", "HOME=/tmp"],
}  # fmt: skip
FORM = 1
"""To be raised when a change of this file must make cached layers anew."""


@dataclass(frozen=True, slots=True)
class Images:
    """Archives to import. That of the task image lacks the layer that `base` brings. `name` is the
    task image by its digest (`localhost/whimbrel-task@sha256:`)."""

    pause: Path
    base: Path
    task: Path
    name: str


def images(*, binaries: Path, say: Say) -> Images:
    """Made when their content is new; layers and archives stay in the cache."""
    cache = CACHE / "images"
    cache.mkdir(parents=True, exist_ok=True)
    with locked("images", folder=CACHE, waiting=say):
        bottom, sdk = _base(cache, say=say), _sdk(cache)
        pause = cache / f"pause-{binaries.name}.tar"
        if not pause.exists():
            layer = pack(pause.with_suffix(".layer"), {"pause": binaries / "pause"})
            write(pause, PAUSE, (layer,), {"User": "65535:65535", "Entrypoint": ["/pause"]})
        base = cache / f"python-{_key(bottom.name)}.tar"
        if not base.exists():
            layer = Layer.of(bottom)
            write(base, BASE, (layer,), {})
            base.with_suffix(".layer").write_text(json.dumps([layer.digest, layer.size]))
        digest, size = json.loads(base.with_suffix(".layer").read_text())
        task = cache / f"task-{_key(bottom.name, sdk.name)}.tar"
        layers = (Layer(bottom, digest, size), Layer.of(sdk))
        name = write(task, TAG, layers, CONFIG, without=layers[:1])
        for archive in (base, task):
            _keep(archive, kept=KEPT)
    return Images(pause, base, task, f"{TAG.rpartition(':')[0]}@{name}")


def agent_image(*, say: Say) -> Path:
    """An archive of AGENT for nodes that have the task image: the layer of `base` is left out."""
    cache = CACHE / "images"
    with locked("images", folder=CACHE, waiting=say):
        bottom, sdk = _base(cache, say=say), _sdk(cache)
        libraries, code = _agent_libraries(cache, say=say), _agent(cache)
        archive = cache / f"agent-{_key(bottom.name, sdk.name, libraries.name, code.name)}.tar"
        if not archive.exists():
            digest, size = json.loads((cache / f"python-{_key(bottom.name)}.layer").read_text())
            lowest = Layer(bottom, digest, size)
            layers = (lowest, *(Layer.of(path) for path in (libraries, sdk, code)))
            write(archive, AGENT, layers, CONFIG, without=[lowest])
        return _keep(archive, kept=KEPT)


def _agent_libraries(cache: Path, *, say: Say) -> Path:
    """What the extra `agent` requires, and the task image has not."""
    there = _closure(*_requirements(distribution("whimbrel")), *EXTRA)
    wanted = _closure(*_requirements(distribution("whimbrel"), extra="agent"))
    own = {name: found for name, found in wanted.items() if name not in there}
    listed = "\n".join(f"{name}=={found.version}" for name, found in sorted(own.items()))
    target = cache / f"libraries-{_key(sys.version, listed)}.tar"
    if not target.exists():
        say(f"image of the agent: compiling {len(own)} distributions")
        layer = _pack(target, {n: p for found in own.values() for n, p in _installed(found)})
        say(f"image of the agent: {layer.size >> 20} MiB of libraries")
    return _keep(target, kept=KEPT)


def _agent(cache: Path) -> Path:
    """Where an installed whimbrel has it."""
    source = CHECKOUT / "data_plane_agent"
    files = dict(_tree(source, f"{SITE}/whimbrel/_servers/data_plane_agent"))
    content = [part for name in sorted(files) for part in (name, _digest(files[name]))]
    target = cache / f"servers-{_key(*content)}.tar"
    if not target.exists():
        _pack(target, files)
    return _keep(target, kept=KEPT)


def _base(cache: Path, *, say: Say) -> Path:
    wanted = _closure(*_requirements(distribution("whimbrel")), *EXTRA)
    listed = "\n".join(f"{name}=={found.version}" for name, found in sorted(wanted.items()))
    target = cache / f"base-{_key(sys.version, platform.platform(), str(INTERPRETER), listed)}.tar"
    if target.exists():
        return _keep(target, kept=KEPT)
    files: dict[str, Path] = dict(_tree(INTERPRETER / "lib" / PYTHON, LIBRARY))
    for found in wanted.values():
        files.update(_installed(found))
    binary = (INTERPRETER / "bin" / PYTHON).resolve()
    files[f"usr/local/bin/{PYTHON}"] = binary
    files.update(_shared_libraries([p for n, p in files.items() if ".so" in n or p == binary]))
    for path in ("/etc/ssl/certs/ca-certificates.crt", "/bin/busybox"):
        if Path(path).exists():
            files[path.lstrip("/")] = Path(path)
    links = {"usr/local/bin/python3": PYTHON, "usr/local/bin/python": PYTHON}
    if "bin/busybox" in files:  # a shell, for a person who wants to look inside
        links |= {f"bin/{applet}": "busybox" for applet in ("sh", "sleep", "cat", "ls", "ps")}
    layer = _pack(
        target, files, links=links,
        folders={"tmp": 0o1777, "var/tmp": 0o1777, "proc": 0o755, "sys": 0o755, "dev": 0o755},
        texts={
            "etc/passwd": "root:x:0:0:root:/:/bin/sh\ntask:x:1000:1000::/tmp:/bin/sh\n",
            "etc/group": "root:x:0:\ntask:x:1000:\n",
            "etc/nsswitch.conf": "hosts: files dns\n",
        },
    )  # fmt: skip
    say(f"image: {len(wanted)} distributions, {layer.size >> 20} MiB")
    return _keep(target, kept=KEPT)


def _sdk(cache: Path) -> Path:
    files = dict(_tree(SDK, f"{SITE}/whimbrel"))
    metadata = distribution("whimbrel")
    texts = {f"{SITE}/whimbrel-{metadata.version}.dist-info/METADATA":
             f"Metadata-Version: 2.1\nName: whimbrel\nVersion: {metadata.version}\n"}  # fmt: skip
    content = [part for name in sorted(files) for part in (name, _digest(files[name]))]
    target = cache / f"sdk-{_key(*texts, *content)}.tar"
    if not target.exists():
        _pack(target, files, texts=texts)
    return _keep(target, kept=KEPT)


def _pack(target: Path, files: dict[str, Path], **more: dict[str, str] | dict[str, int]) -> Layer:
    """Compiles first: a pod can't write, and would compile everything it imports at each start."""
    with tempfile.TemporaryDirectory(prefix="whimbrel-image-") as stage:
        for name, path in files.items():
            if name.endswith(".py"):
                copy = Path(stage) / name
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, copy)
        compileall.compile_dir(
            stage, quiet=2, workers=os.cpu_count() or 1, stripdir=stage, prependdir="/",
            maxlevels=50, invalidation_mode=PycInvalidationMode.UNCHECKED_HASH,
        )  # fmt: skip
        compiled = {str(p.relative_to(stage)): p for p in Path(stage).rglob("*.pyc")}
        return pack(target, {**files, **compiled}, **more)  # type: ignore[arg-type]


def _closure(*wanted: str) -> dict[str, Distribution]:
    """These, with all that they require here."""
    found: dict[str, Distribution] = {}
    queue = [*wanted]
    while queue:
        name = re.sub(r"[-_.]+", "-", queue.pop()).lower()
        if name in found:
            continue
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:
            continue  # required on another platform only
        queue += _requirements(found[name])
    return found


def _requirements(of: Distribution, *, extra: str = "") -> list[str]:
    """The base ones, or those of an extra alone."""

    def meant(line: str) -> bool:
        return f"extra == '{extra}'" in line.replace('"', "'") if extra else "extra ==" not in line

    return [re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in of.requires or [] if meant(line)]


def _installed(of: Distribution) -> Iterator[tuple[str, Path]]:
    for file in of.files or []:
        path = Path(str(file.locate()))
        used = LEFT_OUT.isdisjoint(file.parts) and file.suffix not in NO_USE
        if used and ".." not in file.parts and path.is_file():
            yield f"{SITE}/{file.as_posix()}", path


def _tree(source: Path, target: str) -> Iterator[tuple[str, Path]]:
    for folder, folders, names in os.walk(source):
        folders[:] = [f for f in folders if f not in LEFT_OUT and not f.startswith("config-")]
        for path in (Path(folder) / name for name in names):
            if path.suffix not in NO_USE and path.is_file():
                yield f"{target}/{path.relative_to(source)}", path


def _shared_libraries(binaries: list[Path]) -> Iterator[tuple[str, Path]]:
    done = subprocess.run(["ldd", *map(str, binaries)], capture_output=True, text=True)
    for library in set(re.findall(r"(/\S+) \(0x", done.stdout)):
        real = Path(library).resolve()
        if "site-packages" not in real.parts:
            own = real.is_relative_to(INTERPRETER)
            yield f"usr/local/lib/{Path(library).name}" if own else library.lstrip("/"), real


def _key(*parts: str) -> str:
    return hashlib.sha256("\0".join((str(FORM), *parts)).encode()).hexdigest()[:16]


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _keep(target: Path, *, kept: int) -> Path:
    """Marks it as used and drops those of its kind that were used longest ago."""
    target.touch()
    kind = f"{target.name.split('-')[0]}-*.tar"
    used = sorted(target.parent.glob(kind), key=lambda path: path.stat().st_mtime, reverse=True)
    for old in used[kept:]:
        old.unlink(missing_ok=True)
        old.with_suffix(".layer").unlink(missing_ok=True)
    return target
