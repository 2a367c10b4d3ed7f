"""A cgroup for every node: two kubelets of one machine must not share a root.

Used by node.py to make one and by faults.py and cluster.py to find and remove what is in it.
"""

import contextlib
from pathlib import Path

from tests.e2e.kubernetes.state import until

ROOT = Path("/sys/fs/cgroup")
UNIFIED = (ROOT / "cgroup.controllers").exists()


def create(name: str) -> None:
    if UNIFIED:
        (ROOT / name).mkdir(exist_ok=True)
        for folder in (ROOT, ROOT / name):
            for controller in ("cpuset", "cpu", "memory", "pids"):
                with contextlib.suppress(OSError):
                    (folder / "cgroup.subtree_control").write_text(f"+{controller}")
        return
    for folder in _folders(name):
        folder.mkdir(exist_ok=True)
    for kind in ("cpus", "mems"):  # empty in a new group, and then no process may enter it
        value = (ROOT / "cpuset" / f"cpuset.{kind}").read_text()
        (ROOT / "cpuset" / name / f"cpuset.{kind}").write_text(value)


def processes(name: str) -> set[int]:
    found: set[int] = set()
    for folder in _folders(name):
        for file in folder.rglob("cgroup.procs"):
            with contextlib.suppress(OSError):
                found.update(int(pid) for pid in file.read_text().split())
    return found


def remove(name: str) -> None:
    """Children first; the kernel lets go of a dead process a little after its end."""
    until(f"cgroup {name} is empty", lambda: all(_rmdir(folder) for folder in _folders(name)))


def _folders(name: str) -> list[Path]:
    parents = [ROOT] if UNIFIED else [path for path in ROOT.iterdir() if path.is_dir()]
    return [parent / name for parent in parents]


def _rmdir(folder: Path) -> bool:
    if not folder.exists():
        return True
    for child in [*sorted((p for p in folder.rglob("*") if p.is_dir()), reverse=True), folder]:
        with contextlib.suppress(OSError):
            child.rmdir()
    return not folder.exists()
