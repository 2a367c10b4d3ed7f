"""Where in the user's code something was written: "file:line" for messages.

Called by everything that refuses a definition or a graph; reads source only once something is
wrong, so that a good program pays nothing.
"""

import inspect
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

_NOT_THEIRS = (str(Path(__file__).parent) + "/", str(Path(os.__file__).parent) + "/", "<")


def of_function(function: Callable[..., Any], *, parameter: str = "") -> str:
    """The line of the `def`, or of one of its parameters where the source can be read."""
    import ast  # only once something is wrong

    code = getattr(inspect.unwrap(function), "__code__", None)
    if code is None:
        return ""
    line = code.co_firstlineno
    try:
        parsed = ast.parse(Path(code.co_filename).read_text(encoding="utf-8"))
    except (OSError, ValueError, SyntaxError):
        return f"{code.co_filename}:{line}"
    for found in ast.walk(parsed):
        if not isinstance(found, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if line not in (found.lineno, *(item.lineno for item in found.decorator_list)):
            continue
        arguments = [*found.args.posonlyargs, *found.args.args, *found.args.kwonlyargs]
        arguments += [item for item in (found.args.vararg, found.args.kwarg) if item]
        lines = [item.lineno for item in arguments if item.arg == parameter]
        return f"{code.co_filename}:{lines[0] if lines else found.lineno}"
    return f"{code.co_filename}:{line}"


def of_error(error: BaseException) -> str:
    """The innermost line of the user's code that an exception passed."""
    import traceback

    places = [
        f"{frame.f_code.co_filename}:{line}"
        for frame, line in traceback.walk_tb(error.__traceback__)
        if _theirs(frame.f_code.co_filename)
    ]
    return places[-1] if places else ""


def _theirs(file: str) -> bool:
    return not file.startswith(_NOT_THEIRS) or "/site-packages/" in file


def of_caller() -> str:
    """The innermost line outside this package and Python's library that led here."""
    frame = sys._getframe(1)  # pyright: ignore[reportPrivateUsage] the documented fast way
    while frame is not None:
        file = frame.f_code.co_filename
        if _theirs(file):
            return f"{file}:{frame.f_lineno}"
        frame = frame.f_back
    return ""
