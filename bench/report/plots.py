"""Figures of the report as SVG: how the samples of each measure are spread.

Called by `__main__.py` with the figures of the parts; answers the names of the files.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

STAGES = ("detect, fence to nobody", "place, fence", "assign, claim", "resume", "whole")
mpl.rcParams.update({"svg.hashsalt": "whimbrel", "font.size": 9, "axes.grid": True})


def draw(figures: Mapping[str, Any], folder: Path) -> dict[str, str]:
    """Part -> file name below `folder`."""
    drawn: dict[str, str] = {}
    if stages := figures.get("losses", {}).get("stages"):
        drawn["losses"] = _save(folder / "losses.svg", lambda axes: _boxes(axes, stages))
    for part, key, label in (
        ("migrations", "pauses", "seconds in which the run did nothing"),
        ("exclusive", "gaps", "seconds between two copies (an overlap would be below 0)"),
    ):
        if samples := figures.get(part, {}).get(key):
            drawn[part] = _save(
                folder / f"{part}.svg", lambda axes, s=samples, x=label: _share(axes, s, x)
            )
    return drawn


def _save(file: Path, paint: Any) -> str:
    figure = Figure(figsize=(7, 2.6), layout="constrained")
    paint(figure.subplots())
    figure.savefig(file, metadata={"Date": None})
    return file.name


def _boxes(axes: Axes, stages: Mapping[str, Sequence[float]]) -> None:
    shown = [stage for stage in reversed(STAGES) if stages.get(stage)]
    axes.boxplot(
        [list(stages[stage]) for stage in shown], orientation="horizontal", tick_labels=shown,
        whis=(0, 100),
    )  # fmt: skip
    axes.set_xlabel("seconds (box: quartiles, whiskers: all)")


def _share(axes: Axes, samples: Sequence[float], label: str) -> None:
    axes.ecdf(list(samples))
    axes.set_xlabel(label)
    axes.set_ylabel("share of samples")
    axes.set_xlim(left=min(0.0, *samples))
