"""Kubernetes' way to write amounts ("500m", "2Gi") as numbers. Pure.

Used by `sight.py` and `capacity.py`.
"""

import re

_QUANTITY = re.compile(
    r"(\d+(?:\.\d*)?|\.\d+)([eE][+-]?\d{1,2}|n|u|m|k|Ki|M|Mi|G|Gi|T|Ti|P|Pi|E|Ei)?", re.ASCII
)
_SMALL = {"": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_POWERS = "kMGTPE"
_MOST = float(2**63)


def number(quantity: object) -> float:
    """0 when it is none."""
    found = _QUANTITY.fullmatch(str(quantity)) if quantity is not None else None
    if found is None:
        return 0.0
    value, unit = float(found[1]), found[2] or ""
    if unit in _SMALL:
        value *= _SMALL[unit]
    elif unit[-1].isdigit():
        value *= 10.0 ** int(unit[1:])
    else:
        power = _POWERS.upper().index(unit[0].upper()) + 1
        value *= (1024.0 if unit.endswith("i") else 1000.0) ** power
    return min(value, _MOST)
