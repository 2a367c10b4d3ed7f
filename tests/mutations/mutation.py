"""One guard of the real code, and the code without it.

Written down in the catalogue, one file a subject; applied by `trial.py` to a copy; checked by
`test_mutations.py` to still fit.
"""

import ast
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path


class Unfit(Exception):
    """The code has moved on and this mutation has not: it would take out nothing, or too much."""


@dataclass(frozen=True, slots=True)
class Mutation:
    """In `file`, inside of the function `within` ("" = anywhere), `old` stands exactly once and
    becomes `new`; then one of `tests` must fail. `guard` says in a sentence what the code does."""

    name: str
    invariant: str
    guard: str
    file: str
    within: str
    old: str
    new: str
    tests: tuple[str, ...]

    def apply(self, text: str) -> str:
        """The file's text without the guard."""
        start, end = self._span(text)
        count = text.count(self.old, start, end)
        if count != 1:
            where = f"{self.file}, {self.within}" if self.within else self.file
            raise Unfit(f"{self.name}: {where} has {count} times, not once: {self.old!r}")
        at = text.index(self.old, start, end)
        return text[:at] + self.new + text[at + len(self.old) :]

    def _span(self, text: str) -> tuple[int, int]:
        if not self.within:
            return 0, len(text)
        found = [node for name, node in functions(parsed(text)) if name == self.within]
        if len(found) != 1:
            raise Unfit(f"{self.name}: {self.file} has {len(found)} functions {self.within!r}")
        lines = text.splitlines(keepends=True)
        first, last = found[0].lineno - 1, found[0].end_lineno or 0
        start = len("".join(lines[:first]))
        return start, start + len("".join(lines[first:last]))


@cache
def parsed(text: str) -> ast.Module:
    return ast.parse(text)


def functions(
    tree: ast.AST, outside: str = ""
) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Each with its name as `Class.method` or `function`."""
    for node in ast.iter_child_nodes(tree):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                yield outside + node.name, node
                yield from functions(node, f"{outside}{node.name}.")
            case ast.ClassDef():
                yield from functions(node, f"{outside}{node.name}.")
            case _:
                yield from functions(node, outside)


def source(root: Path, file: str) -> str:
    with tokenize.open(root / file) as opened:
        return opened.read()
