"""Kubernetes' way to write amounts ("500m", "2Gi") as numbers. Pure.

Used by `pod_sight.py` and `pod_capacity.py`.
"""

import re

_QUANTITY = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(m|k|Ki|M|Mi|G|Gi|T|Ti|P|Pi|E|Ei)?", re.ASCII)
_POWERS = "kMGTPE"


def number(quantity: object) -> float:
    """0 when it is none."""
    found = _QUANTITY.fullmatch(str(quantity)) if quantity is not None else None
    if found is None:
        return 0.0
    value, unit = float(found[1]), found[2] or ""
    if unit == "m":
        return value / 1000
    if not unit:
        return value
    power = _POWERS.upper().index(unit[0].upper()) + 1
    return value * (1024.0 if unit.endswith("i") else 1000.0) ** power
