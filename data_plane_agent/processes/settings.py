"""What the process launcher may use of this machine, and how patient it is.

Made by `__main__`; read by `launcher.py` and `pool.py`.
"""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ProcessSettings:
    """`slots`: attempts at once. `cpu` and `mem_bytes`: what their requests may add up to, 0 = the
    whole machine.

    `idle_seconds` until an unused family ends: too short imports again and again, too long keeps
    memory.
    """

    data_dir: Path
    store: str
    region: str
    slots: int
    cpu: float = 0.0
    mem_bytes: int = 0
    idle_seconds: float = 300.0
    orphan_seconds: float = 600.0
    import_seconds: float = 120.0
    leak_bytes: int = 512 * 1024 * 1024
