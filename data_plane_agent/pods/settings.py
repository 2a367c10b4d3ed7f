"""What the pod launcher is told about its cluster, and how patient it is.

Made by `__main__` from the agent's settings; read by `launcher.py` and the pure files beside it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class PodSettings:
    """Times are in seconds.

    `unschedulable_seconds` a pod may wait for room: shorter sends runs away that a busy minute
    delays, longer leaves them waiting while another cluster is free. `image_seconds` an image may
    fail to arrive: shorter takes a slow registry for a wrong name. `start_seconds` a pod may be on
    a node without starting: shorter takes a large image for a broken node, longer leaves runs on
    one. `linger_seconds` a finished pod stays for people to look at: longer keeps more objects in
    the API server. `grace_seconds` from SIGTERM to SIGKILL: shorter than a checkpoint takes loses
    it. `orphan_seconds` between two looks for pods that nobody owns. `lost_seconds` a pod may sit
    on a node that is not heard.
    """

    cluster: str
    region: str
    namespace: str
    image: str
    images: tuple[str, ...] = ()
    """Globs of the images a task may name; empty = any."""
    secrets: Mapping[str, str] = field(default_factory=dict[str, str])
    """A secret's name in a task -> "KUBERNETES-SECRET/KEY"."""
    gpu_resource: str = "nvidia.com/gpu"
    template: Mapping[str, object] = field(default_factory=dict[str, object])
    """Part of a pod's manifest that the platform team adds; see `template.py`."""
    run_as: int = 1000
    default_cpu: float = 0.1
    default_mem_bytes: int = 256 * 1024 * 1024
    unschedulable_seconds: float = 120.0
    image_seconds: float = 300.0
    start_seconds: float = 600.0
    linger_seconds: float = 10.0
    grace_seconds: float = 30.0
    orphan_seconds: float = 60.0
    lost_seconds: float = 40.0
    creates_at_once: int = 16
