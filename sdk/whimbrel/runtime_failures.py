"""Whose fault it was: what user code raised, as an owner, a kind, one line to act on and the user's
own frames.

Called by `runtime_worker.py` for tasks and by `runtime.py` for imports; the agent turns the answer
into `Broke`.
"""

import traceback
from collections.abc import Iterator
from pathlib import Path

from whimbrel.checkpoint import Interrupted
from whimbrel.errors import WhimbrelError
from whimbrel.runtime_store import StoreFull, UnreadableInput
from whimbrel.spec import Failure, Owner

_OURS = str(Path(__file__).parent)
_LONGEST = 16 * 1024


def describe(error: BaseException, *, inside: str) -> Failure:
    """`inside` is the folder of the user's code: paths are shown relative to it."""
    if isinstance(error, Interrupted):
        return Failure(Owner.SYSTEM, "interrupted", str(error))
    unreadable = unreadable_uris(error)
    full = next((link for link in _chain(error) if isinstance(link, StoreFull)), None)
    if unreadable:
        missing = next(link for link in _chain(error) if isinstance(link, UnreadableInput))
        return Failure(Owner.SYSTEM, "unreadable_input", str(missing))
    if full is not None:
        return Failure(Owner.SYSTEM, "store_full", str(full))
    text, place = _traceback(error, inside=inside)
    match error:
        case SystemExit():
            code = _exit_code(error)
            return Failure(
                Owner.USER, "exited", f"exited with status {code} without a result{place}"
            )
        case MemoryError():
            message = f"out of memory{place}: the task asked for more than it can get"
            return Failure(Owner.USER, "oom", message, traceback=text)
        case WhimbrelError():
            message = " ".join(str(error).split())
            return Failure(Owner.USER, "raised", message[:2000], traceback=text)
        case _:
            first = next(iter(str(error).strip().splitlines()), "")
            message = f"{type(error).__name__}: {first}" if first else type(error).__name__
            return Failure(Owner.USER, "raised", message[:2000] + place, traceback=text)


def unreadable_uris(error: BaseException) -> list[str]:
    return [link.uri for link in _chain(error) if isinstance(link, UnreadableInput)]


def _exit_code(error: SystemExit) -> int:
    match error.code:
        case None:
            return 0
        case int(code):
            return code
        case _:
            return 1


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or link.__context__


def _traceback(error: BaseException, *, inside: str) -> tuple[str, str]:
    """The user's frames only, and " (file:line)" of the innermost one in the user's own code."""
    story = traceback.TracebackException.from_exception(error)
    place = ""
    link: traceback.TracebackException | None = story
    while link is not None:
        own = [frame for frame in link.stack if not _plumbing(frame.filename)]
        for frame in own:
            if link is story and frame.filename.startswith(f"{inside}/"):
                place = f" ({frame.filename.removeprefix(f'{inside}/')}:{frame.lineno})"
            frame.filename = frame.filename.removeprefix(f"{inside}/")
        link.stack = traceback.StackSummary.from_list(own)
        link = link.__cause__ or link.__context__
    return "".join(story.format())[-_LONGEST:], place


def _plumbing(filename: str) -> bool:
    return filename.startswith((_OURS, "<frozen importlib")) or "/importlib/__init__.py" in filename
