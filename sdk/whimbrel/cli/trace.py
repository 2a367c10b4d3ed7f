"""The trace of a run as a tree: name, time, service, region, and what a span continues.

Called by `execution trace` and the demo; spans come from the endpoint in any order.
"""

from collections.abc import Sequence

from rich.text import Text
from rich.tree import Tree

from whimbrel.client_views import SpanView

SHOWN = ("execution", "node", "task", "cluster", "epoch", "attempt", "cause")
"""Attributes worth their place on a line; the rest is in `-o json`."""


def tree(spans: Sequence[SpanView]) -> Tree:
    """Orphans, whose parent was never exported (a killed agent's), hang below the root."""
    known = {span.span_id for span in spans}
    children: dict[str, list[SpanView]] = {}
    for span in sorted(spans, key=lambda item: item.start_ns):
        parent = span.parent_id if span.parent_id in known else ""
        children.setdefault(parent, []).append(span)
    begin = min((span.start_ns for span in spans), default=0)
    names = {span.span_id: span.name for span in spans}
    roots = children.get("", [])
    trunk = Tree(Text("trace"), hide_root=True)
    first = next((span for span in roots if not span.parent_id), None)
    top = trunk
    if first is not None:
        top = trunk.add(_line(first, begin, names))
        _grow(top, first, children, begin, names)
    for span in roots:
        if span is not first:
            _grow(top.add(_line(span, begin, names)), span, children, begin, names)
    return trunk


def _grow(
    branch: Tree,
    span: SpanView,
    children: dict[str, list[SpanView]],
    begin: int,
    names: dict[str, str],
) -> None:
    for child in children.get(span.span_id, []):
        _grow(branch.add(_line(child, begin, names)), child, children, begin, names)


def _line(span: SpanView, begin: int, names: dict[str, str]) -> Text:
    region = span.attributes.get("whimbrel.region", span.attributes.get("region", ""))
    place = f"{span.service} {region}".strip()
    details = [
        f"{key}={value}"
        for key in SHOWN
        if (value := span.attributes.get(f"whimbrel.{key}", span.attributes.get(key, "")))
        and key != "execution"
    ]
    line = Text(span.name, style="red" if span.error else "bold")
    line.append(f"  {(span.end_ns - span.start_ns) / 1e6:.1f} ms", style="cyan")
    line.append(f"  +{(span.start_ns - begin) / 1e9:.3f} s  {place}", style="dim")
    if details:
        line.append("  " + " ".join(details), style="dim")
    for link in span.links:
        line.append(f"  continues {names.get(link, link)}", style="yellow")
    return line
