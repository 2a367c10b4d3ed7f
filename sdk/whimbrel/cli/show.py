"""How results look: tables for people, JSON and YAML for programs; colours on a terminal only.

Called by every command. Results go to `out`, all that is said besides to `err`.
"""

import json
import sys
from collections.abc import Sequence
from enum import StrEnum
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table
from rich.text import Text

from whimbrel.errors import WhimbrelError

PHASE_STYLES = {
    "SUCCEEDED": "green", "FAILED": "red", "ABORTED": "red", "RUNNING": "cyan",
    "MOVING": "yellow", "WAITING": "yellow", "ALIVE": "green", "LOST": "red", "ABSENT": "red",
    "OK": "green", "ILL": "red", "RESUMED": "green", "REFUSED": "red", "TAKEN_OVER": "yellow",
}  # fmt: skip


class Form(StrEnum):
    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


WIDE = 240
"""Columns of what is not a terminal: nothing there wraps a line."""


def out() -> Console:
    return Console(highlight=False, width=None if sys.stdout.isatty() else WIDE)


def err() -> Console:
    return Console(stderr=True, highlight=False, soft_wrap=not sys.stderr.isatty())


def phase(text: str) -> Text:
    return Text(text, style=PHASE_STYLES.get(text, ""))


def document(value: Any, form: Form) -> None:
    """A result as JSON or YAML, the same object."""
    if form is Form.YAML:
        sys.stdout.write(yaml.safe_dump(value, sort_keys=False, allow_unicode=True))
    else:
        sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def table(columns: Sequence[str], rows: Sequence[Sequence[str | Text]]) -> None:
    sheet = Table(box=None, pad_edge=False, header_style="bold", show_edge=False)
    for column in columns:
        sheet.add_column(column, no_wrap=not sys.stdout.isatty())
    for row in rows:
        sheet.add_row(*row)
    out().print(sheet)


def say(text: str) -> None:
    err().print(text, markup=False)


def error(problem: WhimbrelError) -> None:
    console = err()
    place = f"{problem.place}: " if problem.place else ""
    console.print(Text("error: ", style="bold red") + Text(f"{place}{problem.message}", style=""))
    if problem.remedy:
        console.print(Text(f"  {problem.remedy}"))


def seconds(start_ns: int, end_ns: int) -> str:
    """A duration for a table; "" when it has not ended."""
    if not start_ns or not end_ns:
        return ""
    took = (end_ns - start_ns) / 1e9
    return f"{took * 1000:.1f} ms" if took < 1 else f"{took:.1f} s"
