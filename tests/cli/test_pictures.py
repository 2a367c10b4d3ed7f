"""What a person sees of a run: its story in lines, each once, and its trace as one tree."""

import io
from dataclasses import replace

from rich.console import Console
from whimbrel.cli import trace
from whimbrel.cli.follow import Story, picture
from whimbrel.client_times import rfc3339
from whimbrel.client_views import ExecutionView, NodeView, SpanView, TimelineView
from whimbrel.spec import Failure, Owner, Phase

NODE = NodeView("train", "m.train", "RUNNING", 1, 1, "us-east", "", "", 1, 0, None, "")
VIEW = ExecutionView(
    project="p", domain="d", name="run", workflow="m.w", version="1", phase=Phase.RUNNING,
    reason="", region="us-east", cluster="us-east", epoch=1, inputs={}, outputs=None, error=None,
    created_ns=1, started_ns=1, ended_ns=0, trace_id="t", mode="idempotent", nodes=(NODE,),
    timeline=(TimelineView(1, 1, "placed", "us-east", "launch"),),
)  # fmt: skip


def span(name: str, parent: str = "", *, start: int = 0, links: tuple[str, ...] = ()) -> SpanView:
    return SpanView(name, parent, name, "agent", start, start + 1_000_000, False, {}, links)


def drawn(*spans: SpanView) -> list[str]:
    console = Console(file=io.StringIO(), width=200)
    console.print(trace.tree(spans))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_a_story_tells_every_change_once() -> None:
    console = Console(file=io.StringIO(), width=200)
    story = Story(console)
    story.tell(VIEW)
    story.tell(VIEW)
    moved = replace(NODE, cluster="eu-west", attempt=2, lineage="recomputed: lost")
    story.tell(replace(VIEW, nodes=(moved,)))
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert [line.split("  ", 1)[1].split()[0] for line in lines] == ["placed", "RUNNING", "RUNNING"]
    assert "recomputed: lost" in lines[2]


def test_a_picture_says_where_a_node_runs_and_why_not_elsewhere() -> None:
    console = Console(file=io.StringIO(), width=200)
    lost = Failure(Owner.SYSTEM, "node_lost", "n1 is gone", "train")
    node = replace(NODE, host="n2", avoided=("n1",), error=lost, attempt=2, system_failures=1)
    console.print(picture(replace(VIEW, nodes=(node,))))
    assert isinstance(console.file, io.StringIO)
    line = next(one for one in console.file.getvalue().splitlines() if one.startswith("train"))
    assert line.split()[:5] == ["train", "RUNNING", "us-east", "n2", "2"]
    assert "system: n1 is gone; not on n1: the platform broke a try there" in line
    shown = node.as_json()
    assert (shown["host"], shown["avoided"]) == ("n2", ["n1"])
    assert (shown["user_failures"], shown["system_failures"]) == (0, 1)
    assert NODE.as_json()["host"] is None


def test_spans_hang_below_their_parents_in_order_of_time() -> None:
    lines = drawn(span("late", "root", start=9), span("root"), span("early", "root", start=1))
    assert [line.split("  ")[0].strip("├└─ ") for line in lines] == ["root", "early", "late"]


def test_a_span_whose_parent_died_with_its_agent_is_shown_below_the_root() -> None:
    lines = drawn(span("root"), span("task", "never-sent"))
    assert lines[1].startswith("└── task")


def test_a_link_says_what_is_continued() -> None:
    lines = drawn(span("root"), span("lost", "root"), span("again", "root", links=("lost",)))
    assert "continues lost" in lines[2]


def test_times_are_rfc_3339_in_utc() -> None:
    assert rfc3339(1_700_000_000_123_000_000) == "2023-11-14T22:13:20.123Z"
    assert rfc3339(0) is None
