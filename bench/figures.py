"""Samples and the table they become: one row a measure, ours and a peer's side by side (pure).

Filled by the measures, printed by `__main__`, written as JSON for whoever compares two runs.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any


def percentile(samples: Sequence[float], share: float) -> float:
    """The nearest-rank percentile; `share` in 0..1."""
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, max(0, round(share * len(ordered) + 0.5) - 1))]


def number(value: float) -> str:
    """Three significant digits, never in scientific notation."""
    if value == 0:
        return "0"
    digits = max(0, 3 - len(str(int(abs(value)))) if abs(value) >= 1 else 4)
    return f"{value:,.{digits}f}"


def spread(samples: Sequence[float]) -> str:
    """median [min..max]"""
    if not samples:
        return "-"
    if len(samples) == 1:
        return f"{number(samples[0])} (1 run)"
    return f"{number(median(samples))} [{number(min(samples))}..{number(max(samples))}]"


@dataclass(frozen=True, slots=True)
class Row:
    """`goal` is compared with our median in the direction of `higher`; 0 = none is set."""

    measure: str
    unit: str
    ours: tuple[float, ...]
    goal: float = 0
    higher: bool = False
    peer: str = ""
    theirs: tuple[float, ...] = ()
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """How many times better than the peer we are."""
        if not self.ours or not self.theirs:
            return None
        ours, theirs = median(self.ours), median(self.theirs)
        if not ours or not theirs:
            return None
        return ours / theirs if self.higher else theirs / ours

    @property
    def verdict(self) -> str:
        if not self.goal or not self.ours:
            return ""
        value = median(self.ours)
        met = value >= self.goal if self.higher else value <= self.goal
        return "met" if met else "MISSED"


@dataclass(slots=True)
class Report:
    rows: list[Row] = field(default_factory=list[Row])
    notes: list[str] = field(default_factory=list[str])
    about: dict[str, Any] = field(default_factory=dict[str, Any])

    def add(self, row: Row) -> None:
        self.rows.append(row)

    def note(self, text: str) -> None:
        self.notes.append(text)

    def as_json(self) -> dict[str, Any]:
        rows = [asdict(row) | {"ratio": row.ratio, "verdict": row.verdict} for row in self.rows]
        return {"about": self.about, "rows": rows, "notes": self.notes}

    def table(self) -> str:
        head = ("measure", "unit", "ours", "peer", "theirs", "x better", "goal", "")
        lines = [head]
        for row in self.rows:
            sign = (">= " if row.higher else "<= ") + number(row.goal) if row.goal else ""
            ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
            theirs = spread(row.theirs) if row.peer else ""
            lines.append((
                row.measure, row.unit, spread(row.ours), row.peer, theirs, ratio, sign,
                " ".join(filter(None, (row.verdict, row.note))),
            ))  # fmt: skip
        widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
        lines.insert(1, tuple("-" * width for width in widths))
        text = ["  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip()
                for line in lines]  # fmt: skip
        return "\n".join([*text, *(f"note: {note}" for note in self.notes)])
