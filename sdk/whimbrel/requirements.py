"""What a task needs and where a run may be, as authors write it: `Resources`, `Placement`, ...

Used by `@task`, `@workflow` and `with_overrides`; turned here into the plain numbers of `spec.py`.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from whimbrel import spec
from whimbrel.errors import InvalidInput

_QUANTITY = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*(m|k|Ki|M|Mi|G|Gi|T|Ti|P|Pi|E|Ei)?B?\s*")
_SUFFIXES = {"": 1.0, "m": 1e-3, "k": 1e3} | {
    unit: float(base**power)
    for power, letter in enumerate("kMGTPE", start=1)
    for unit, base in ((letter, 1000), (f"{letter.upper()}i", 1024))
}


def quantity(value: str | float, *, what: str) -> float:
    """A Kubernetes quantity ("500m", "2Gi", 4) as a number."""
    match value:
        case bool():
            pass
        case int() | float():
            if value >= 0 and math.isfinite(value):
                return float(value)
        case str():
            if found := _QUANTITY.fullmatch(value):
                return float(found[1]) * _SUFFIXES[found[2] or ""]
        case _:  # users' code need not be type checked
            pass
    raise InvalidInput(
        f"{what}={value!r} is not a quantity", remedy='write a number or e.g. "500m", "2Gi", "1.5G"'
    )


@dataclass(frozen=True, slots=True)
class Resources:
    """As Kubernetes writes them.

    Cpu in cores ("500m"), mem and ephemeral_storage in bytes ("2Gi").
    """

    cpu: str | float | None = None
    mem: str | int | None = None
    gpu: str | int | None = None
    ephemeral_storage: str | int | None = None

    def __post_init__(self) -> None:
        self.to_spec()

    def to_spec(self) -> spec.Resources:
        gpus = quantity(self.gpu or 0, what="gpu")
        if gpus != int(gpus):
            raise InvalidInput(f"gpu={self.gpu!r}: only whole ones can be asked for")
        return spec.Resources(
            cpu=quantity(self.cpu or 0, what="cpu"),
            mem_bytes=int(quantity(self.mem or 0, what="mem")),
            gpu=int(gpus),
            ephemeral_storage_bytes=int(
                quantity(self.ephemeral_storage or 0, what="ephemeral_storage")
            ),
        )


@dataclass(frozen=True, slots=True)
class Secret:
    """The name of a secret; the value never is in a specification."""

    key: str
    group: str = ""

    @property
    def name(self) -> str:
        return f"{self.group}/{self.key}" if self.group else self.key


MOST_PRIORITY = 1000


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a run may be and whether it may move.

    `regions` and `clusters` are globs, an ordered list of regions is ordered fallback; `prefer` are
    "label=value". `max_wait` in seconds: too short fails runs that a busy minute delays; 0 waits
    for ever. `replicate` are globs of regions (allowed by `regions`) that get a copy of every
    output and checkpoint as it is made: more traffic, and less to compute again when a region is
    lost. Runs of a higher `priority` (-1000 to 1000) leave a lost or drained cluster first, and are
    looked at first while they wait; it takes nothing away from a run that has a place.
    """

    regions: Sequence[str] = ()
    clusters: Sequence[str] = ()
    prefer: Sequence[str] = ()
    mode: str = "idempotent"
    failover: bool = True
    max_wait: float | timedelta = 0
    replicate: Sequence[str] = ()
    priority: int = 0

    def __post_init__(self) -> None:
        self.to_spec()

    def to_spec(self) -> spec.PlacementPolicy:
        for name in ("regions", "clusters", "prefer", "replicate"):
            if isinstance(getattr(self, name), str):
                raise InvalidInput(f"Placement({name}=...) takes a list of names, not one string")
        modes = {mode.value: mode for mode in spec.Mode}
        if self.mode not in modes:
            raise InvalidInput(f"Placement(mode={self.mode!r}): one of {', '.join(modes)}")
        priority: Any = self.priority
        if type(priority) is not int or abs(priority) > MOST_PRIORITY:
            raise InvalidInput(
                f"Placement(priority={priority!r}): a whole number from -{MOST_PRIORITY} to "
                f"{MOST_PRIORITY}"
            )
        return spec.PlacementPolicy(
            regions=tuple(self.regions),
            clusters=tuple(self.clusters),
            mode=modes[self.mode],
            failover=self.failover,
            prefer=tuple(self.prefer),
            max_wait_seconds=seconds(self.max_wait, what="max_wait"),
            replicate=tuple(self.replicate),
            priority=self.priority,
        )


def seconds(value: float | timedelta, *, what: str) -> float:
    match value:
        case timedelta():
            length = value.total_seconds()
        case int() | float() if not isinstance(value, bool):
            length = float(value)
        case _:
            length = -1.0
    if length < 0 or not math.isfinite(length):
        raise InvalidInput(
            f"{what}={value!r} is no length of time",
            remedy="write seconds or a timedelta, 0 for no limit",
        )
    return length


def tries(value: int, *, what: str = "retries") -> int:
    if type(value) is not int or value < 0:
        raise InvalidInput(f"{what}={value!r} must be a whole number, 0 or more")
    return value
