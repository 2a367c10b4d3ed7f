"""One error tree: each class has a gRPC status and an owner. A message says what, where, what next.

    WhimbrelError
    ├── InvalidInput        INVALID_ARGUMENT     user    exit 2
    ├── NotFound            NOT_FOUND            user    exit 2
    ├── Conflict            ALREADY_EXISTS       user    exit 2   another meaning, same name
    ├── Refused             FAILED_PRECONDITION  user    exit 2   allowed in general, not now
    ├── TooLarge            RESOURCE_EXHAUSTED   user    exit 2
    ├── Fenced              ABORTED              system           a newer epoch owns the run
    ├── Unreachable         UNAVAILABLE          system  exit 3
    └── ExecutionFailed     (client side only)   by the failure, exit 1

`service/rpc.py` turns them into a status on the server and `rpc.py` turns the status back. INTERNAL
means a bug.
"""

from whimbrel.spec import Owner


class WhimbrelError(Exception):
    """Base of everything this package raises on purpose.

    `remedy` is what to do about it; `place` is "file:line" in the user's code where that is known.
    """

    code = "INTERNAL"
    owner = Owner.SYSTEM
    exit_code = 1

    def __init__(self, message: str, *, remedy: str = "", place: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy
        self.place = place

    def __str__(self) -> str:
        text = f"{self.place}: {self.message}" if self.place else self.message
        return f"{text}\n  {self.remedy}" if self.remedy else text


class InvalidInput(WhimbrelError):
    """What was given can't be used; nothing was changed."""

    code, owner, exit_code = "INVALID_ARGUMENT", Owner.USER, 2


class NotFound(WhimbrelError):
    """There is no such thing, or the caller may not know that there is."""

    code, owner, exit_code = "NOT_FOUND", Owner.USER, 2


class Conflict(WhimbrelError):
    """The name is taken by something with another meaning."""

    code, owner, exit_code = "ALREADY_EXISTS", Owner.USER, 2


class Refused(WhimbrelError):
    """Allowed in general, not in the present state."""

    code, owner, exit_code = "FAILED_PRECONDITION", Owner.USER, 2


class TooLarge(WhimbrelError):
    """Over a limit that the message names."""

    code, owner, exit_code = "RESOURCE_EXHAUSTED", Owner.USER, 2


class Fenced(WhimbrelError):
    """A newer epoch owns the run; what was offered changes nothing."""

    code, owner = "ABORTED", Owner.SYSTEM


class Unreachable(WhimbrelError):
    """The other side does not answer; the same call may succeed later."""

    code, owner, exit_code = "UNAVAILABLE", Owner.SYSTEM, 3


class ExecutionFailed(WhimbrelError):
    """Raised by `Execution.wait()` and `outputs`: the run ended FAILED or ABORTED."""

    code, exit_code = "UNKNOWN", 1
