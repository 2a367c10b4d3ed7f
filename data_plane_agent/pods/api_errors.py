"""What an API server refuses, sorted by what to do about it.

Made by `api.py` from answers, ERROR events and broken connections; everybody imports them from
there. Pure.
"""

from typing import Any

Object = dict[str, Any]

_AGAIN = {401, 408, 429}  # 401: the token may have been replaced since it was read


class ApiError(Exception):
    """The API server refused. `reason` is for machines (Forbidden, ...), `message` for people.

    ApiError
    ├── ApiDown   no answer, 401, 429, 5xx: worth trying again, not before `retry_after` seconds
    ├── Missing   404 (of a get: None; of a delete: fine)
    ├── Taken     409 AlreadyExists
    ├── Denied    403 (a used-up quota: `over_quota`)
    ├── Invalid   400, 422
    └── Expired   410: the resource version or the page is too old
    """

    def __init__(
        self, message: str, *, status: int = 0, reason: str = "", retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.reason = reason
        self.retry_after = retry_after


class ApiDown(ApiError):
    """The same call may succeed later."""


class Missing(ApiError):
    """404: no such object, or no such namespace."""


class Taken(ApiError):
    """409: an object of that name exists, perhaps one that is being deleted."""


class Denied(ApiError):
    """403: no permission, admission, or quota."""

    @property
    def passing(self) -> bool:
        """The pod is not what is refused: quota, a role that a roll-out took away, a namespace that
        is made anew. A webhook's words are its own, whatever they are."""
        said = self.message
        mine = any(words in said for words in ("cannot create resource", "is being terminated"))
        return self.over_quota or (mine and "admission webhook" not in said)

    @property
    def over_quota(self) -> bool:
        """It may fit later. "status unknown": the quota is so new that nobody has counted yet."""
        return "exceeded quota" in self.message or "status unknown for quota" in self.message


class Invalid(ApiError):
    """400 or 422: the object can never be accepted as it is. Of a log: not begun yet."""


class Expired(ApiError):
    """410: list anew."""


def error_of(code: int, status: Object, *, header: str = "") -> ApiError:
    """`status` is Kubernetes' Status object, of an answer or of an ERROR event."""
    code = code or int(status.get("code") or 0)
    reason = str(status.get("reason") or "")
    message = str(status.get("message") or reason or f"status {code}")
    details: Any = status.get("details") or {}
    try:
        retry_after = float(header or details["retryAfterSeconds"])
    except (ValueError, TypeError, KeyError):
        retry_after = None
    match code:
        case 400 | 422:
            kind = Invalid
        case 403:
            kind = Denied
        case 404:
            kind = Missing
        case 409 if reason == "AlreadyExists":
            kind = Taken
        case 409:  # two wrote the same thing at once, e.g. a quota's count: again is the answer
            kind = ApiDown
        case 410:
            kind = Expired
        case _ if code >= 500 or code in _AGAIN or not code:
            kind = ApiDown
        case _:
            kind = ApiError
    return kind(message, status=code, reason=reason, retry_after=retry_after)
