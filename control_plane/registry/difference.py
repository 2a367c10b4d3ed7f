"""What two meanings of one version differ in, field by field. Pure; asked when a version is
refused.
"""

import json
from typing import cast

from whimbrel.spec import WorkflowSpec, tree

SHOWN = 20
ABSENT = "(absent)"


def difference(old: WorkflowSpec, new: WorkflowSpec) -> list[str]:
    """Lines "path: old -> new"; lists of nodes, tasks and variables are compared by name."""
    lines: list[str] = []
    compare("", json.loads(json.dumps(tree(old))), json.loads(json.dumps(tree(new))), lines)
    return lines[:SHOWN] + ([f"... and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else [])


def compare(path: str, old: object, new: object, lines: list[str]) -> None:
    before, after = fields(old), fields(new)
    if before is not None and after is not None:
        for key in sorted({*before, *after}):
            inner = f"{path}.{key}" if path else key
            compare(inner, before.get(key, ABSENT), after.get(key, ABSENT), lines)
    elif old != new:
        lines.append(f"{path}: {short(old)} -> {short(new)}")


def fields(value: object) -> dict[str, object] | None:
    """An object, or a list as an object of its items by their id, name or position."""
    if isinstance(value, dict):
        return cast("dict[str, object]", value)
    if not isinstance(value, list):
        return None
    items = cast("list[object]", value)
    for key in ("id", "name"):
        known = [cast("dict[str, object]", item) for item in items if isinstance(item, dict)]
        if len(known) == len(items) and all(key in item for item in known):
            return {str(item[key]): item for item in known}
    return {str(index): item for index, item in enumerate(items)}


def short(value: object) -> str:
    text = ABSENT if value == ABSENT else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "..."
