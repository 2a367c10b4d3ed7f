"""Where data may lie: globs of regions, empty = anywhere. Pure.

Asked by the control plane at a launch and before it copies or shows anything, and by agents before
they take a copy; the router's rules say the same of clusters.
"""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any


def allows(globs: Sequence[str], region: str) -> bool:
    return not globs or any(fnmatchcase(region, glob) for glob in globs)


def narrowed(globs: Sequence[str], others: Sequence[str]) -> tuple[str, ...]:
    """What both allow, neither being empty; () = nowhere. Where it can't be said as globs it is
    less than that, never more."""
    inside = [glob for glob in globs if any(_covers(other, glob) for other in others)]
    inside += [other for other in others if any(_covers(glob, other) for glob in globs)]
    return tuple(dict.fromkeys(inside))


def _covers(wide: str, glob: str) -> bool:
    """Does `wide` match whatever `glob` matches? "*" in the one stands for anything in the other;
    of the other signs that is not certain."""
    certain = not set("*?[") & set(glob) or not set("?[") & set(wide)
    return certain and fnmatchcase(glob, wide)


def limits(value: Any) -> list[tuple[str, ...]]:
    """The allowed regions of every artifact in a JSON form that has some."""
    match value:
        case {"$artifact": {"allowed_regions": [*allowed]}} if len(value) == 1:  # pyright: ignore[reportUnknownVariableType]  # JSON
            return [tuple(map(str, allowed))] if allowed else []  # pyright: ignore[reportUnknownArgumentType]  # JSON
        case Mapping():
            return [one for item in value.values() for one in limits(item)]  # pyright: ignore[reportUnknownVariableType]  # JSON
        case list():
            return [one for item in value for one in limits(item)]  # pyright: ignore[reportUnknownVariableType]  # JSON
        case _:
            return []
