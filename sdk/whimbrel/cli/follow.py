"""A run as it goes: a live picture on a terminal, one line a change elsewhere.

Called by `execution watch` and `run --follow`; reads views, knows nothing of the wire.
"""

import sys
from collections.abc import Iterable
from datetime import datetime

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from whimbrel.cli import show
from whimbrel.client_views import ExecutionView, NodeView

TIMELINE_LINES = 12
"""Of the newest entries in the live picture; all of them are in `execution get`."""


def clock(ns: int) -> str:
    return datetime.fromtimestamp(ns / 1e9).strftime("%H:%M:%S.%f")[:-3] if ns else ""


def follow(views: Iterable[ExecutionView]) -> ExecutionView | None:
    """Shows every view on stderr and answers the last one."""
    console = show.err()
    return _live(console, views) if sys.stderr.isatty() else _lines(console, views)


def _live(console: Console, views: Iterable[ExecutionView]) -> ExecutionView | None:
    last = None
    with Live(console=console, refresh_per_second=8, transient=False) as live:
        for last in views:
            live.update(picture(last))
    return last


def picture(view: ExecutionView) -> Group:
    head = Text.assemble(
        (view.name, "bold"), "  ", view.workflow, "  ", show.phase(view.phase.value),
        f"  {view.reason}" if view.reason else "",
        f"  in {view.cluster}" if view.cluster else "", f"  epoch {view.epoch}",
    )  # fmt: skip
    nodes = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("node", "phase", "cluster", "host", "try", "took", ""):
        nodes.add_column(column)
    for node in view.nodes:
        nodes.add_row(
            node.id, show.phase(node.phase), node.cluster, node.host, str(node.attempt or ""),
            show.seconds(node.started_ns, node.ended_ns), node_note(node),
        )  # fmt: skip
    entries = [Text(line, style="dim") for line in timeline_lines(view)[-TIMELINE_LINES:]]
    return Group(head, nodes, *entries)


def node_note(node: NodeView) -> str:
    """What went wrong last, what became of its output, and where it was kept away from and why."""
    notes = [f"{node.error.owner}: {node.error.message}" if node.error else node.lineage]
    if node.avoided:
        notes.append(f"not on {', '.join(node.avoided)}: the platform broke a try there")
    return "; ".join(filter(None, notes))


def timeline_lines(view: ExecutionView) -> list[str]:
    return [
        f"{clock(entry.at_ns)}  {entry.kind:<12} {entry.cluster:<10} {entry.text}".rstrip()
        for entry in view.timeline
    ]


class Story:
    """Tells a run in lines: each entry of its timeline and each change of a node, once."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._shown = 0
        self._nodes: dict[str, tuple[str, int, str]] = {}

    def tell(self, view: ExecutionView) -> None:
        lines = timeline_lines(view)
        for line in lines[self._shown :]:
            self._console.print(line, markup=False)
        self._shown = max(self._shown, len(lines))
        for node in view.nodes:
            state = (node.phase, node.attempt, node.cluster)
            if node.phase == "QUEUED" or self._nodes.get(node.id) == state:
                continue
            self._nodes[node.id] = state
            note = node_note(node)
            self._console.print(
                f"{clock(node.ended_ns or node.started_ns)}  {node.phase:<12} "
                f"{node.cluster:<10} {node.id}" + (f"  ({note})" if note else ""),
                markup=False,
            )


def _lines(console: Console, views: Iterable[ExecutionView]) -> ExecutionView | None:
    story, last = Story(console), None
    for last in views:
        story.tell(last)
    return last
