"""The servers of a cluster, built from their Go modules.

Called by cluster.py before a cluster starts; answers the folder with the binaries. Builds only
what is missing: the folder is named by the digest of what is built, so a fresh clone finds it.
"""

import hashlib
import os
import subprocess
import time
from pathlib import Path

from tests.e2e.kubernetes.state import CACHE, Say, locked

MODULES = Path(__file__).parent / "go"
KUBERNETES = "k8s.io/kubernetes/cmd"
PARTS = {
    "etcd": ("kubernetes", "./cmd/etcd"),
    "pause": ("kubernetes", "./cmd/pause"),
    "kubectl": ("kubernetes", f"{KUBERNETES}/kubectl"),
    "kubelet": ("kubernetes", f"{KUBERNETES}/kubelet"),
    "kube-scheduler": ("kubernetes", f"{KUBERNETES}/kube-scheduler"),
    "kube-controller-manager": ("kubernetes", f"{KUBERNETES}/kube-controller-manager"),
    "kube-apiserver": ("kubernetes", f"{KUBERNETES}/kube-apiserver"),
    "versitygw": ("versitygw", "github.com/versity/versitygw/cmd/versitygw"),
}
"""Binary -> its module under go/ and its package; in the order in which they are built."""


def binaries() -> Path:
    """The folder that holds, or will hold, what these modules build."""
    digest = hashlib.sha256()
    for file in sorted(path for path in MODULES.rglob("*") if path.is_file()):
        digest.update(file.relative_to(MODULES).as_posix().encode())
        digest.update(file.read_bytes())
    return CACHE / f"bin-{digest.hexdigest()[:12]}"


def build(say: Say) -> Path:
    """All parts, built when they are not there yet: minutes the first time, nothing afterwards."""
    folder = binaries()
    with locked("build", folder=CACHE, patience=3600, waiting=say):
        for part in PARTS:
            if not (folder / part).exists():
                began = time.monotonic()
                _build(part, folder)
                say(f"built {part} in {time.monotonic() - began:.0f} s")
    return folder


def _build(part: str, folder: Path) -> None:
    module, package = PARTS[part]
    half = folder / f".{part}"
    flags = ["-trimpath", "-mod=readonly", "-ldflags", f"-s -w {_stamp(module)}"]
    done = subprocess.run(
        ["go", "build", *flags, "-o", str(half), package],
        cwd=MODULES / module, env={**os.environ, "CGO_ENABLED": "0"},
        capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{part} can't be built:\n{done.stderr[-4000:]}")
    half.replace(folder / part)


def _stamp(module: str) -> str:
    """A kubelet without a version in it is refused by the API server."""
    if module != "kubernetes":
        return ""
    for line in (MODULES / module / "go.mod").read_text().splitlines():
        match line.split():
            case ["k8s.io/kubernetes", version, *_]:
                minor = version.split(".")[1]
                at = "-X k8s.io/component-base/version."
                return f"{at}gitVersion={version} {at}gitMajor=1 {at}gitMinor={minor}"
            case _:
                continue
    raise RuntimeError("go.mod names no version of k8s.io/kubernetes")
