"""Disks of nodes: containerd's root folder, with the large layer of the task image in it.

Called by cluster.py and node.py. The layer is unpacked once a machine, not once a node: a new disk
is a copy made of hard links. Unpacked layers are only ever read, so sharing them is safe.
"""

import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.e2e.kubernetes.network import run
from tests.e2e.kubernetes.state import CACHE, Say, locked, until

FOLDER = CACHE / "disks"


def prototype(archives: Sequence[Path], *, say: Say) -> Path:
    """A disk with these archives imported; made when there is none of the same names."""
    target = FOLDER / "-".join(archive.stem for archive in archives)
    with locked("disks", folder=CACHE, waiting=say):
        if not target.exists():
            half = target.with_name(f".{target.name}")
            shutil.rmtree(half, ignore_errors=True)
            _import(archives, half)
            half.rename(target)
            # The one before may be in use by another checkout.
            for old in sorted(FOLDER.glob("pause-*"), key=lambda p: p.stat().st_mtime)[:-2]:
                shutil.rmtree(old)
    return target


def copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    run("cp", "-al", str(source), str(target))
    for database in source.glob("*/*.db"):  # written to, and so not to be shared
        own = target / database.relative_to(source)
        own.unlink()
        shutil.copyfile(database, own)


def _import(archives: Sequence[Path], root: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="whimbrel-disk-") as folder:
        socket, config = f"{folder}/containerd.sock", Path(folder) / "config.toml"
        config.write_text(
            f'version = 2\nroot = "{root}"\nstate = "{folder}/state"\n'
            f'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n[grpc]\naddress = "{socket}"\n'
            f'[ttrpc]\naddress = "{socket}.ttrpc"\n'
            f'[plugins."io.containerd.internal.v1.opt"]\npath = "{folder}/opt"\n'
        )
        ctr = ("ctr", "--address", socket, "--namespace", "k8s.io")
        with subprocess.Popen(
            ["containerd", "--config", str(config)],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        ) as server:  # fmt: skip
            try:
                until("containerd answers", lambda: _works(*ctr, "version"))
                for archive in archives:
                    run(*ctr, "images", "import", str(archive), timeout=300)
            finally:
                server.terminate()


def _works(*command: str) -> bool:
    try:
        run(*command)
    except RuntimeError:
        return False
    return True
