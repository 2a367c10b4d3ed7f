"""The API server of one cluster, one namespace of it: raw JSON objects over the `kubernetes` client.

Called by `reflector.py` (list, watch) and `pods.py` (create, delete, log); answers with plain
dicts, or raises one of the errors below. Nothing else in the project imports the client.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Literal, Self

Object = dict[str, Any]
Resource = Literal["pods", "nodes", "events", "resourcequotas"]


class ApiError(Exception):
    """The API server refused. `reason` is the machine's word (Forbidden, ...), `message` a person's.

    ApiError
    ├── ApiDown   no answer, 429, 5xx: worth trying again, not before `retry_after` seconds
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
    """No answer in time, 429 or 5xx: the same call may succeed later."""


class Taken(ApiError):
    """409: an object of that name exists."""


class Denied(ApiError):
    """403: no permission, admission, or quota."""

    @property
    def over_quota(self) -> bool:
        return "exceeded quota" in self.message


class Invalid(ApiError):
    """400 or 422: the object can never be accepted as it is."""


class Expired(ApiError):
    """410: list anew."""


@dataclass(frozen=True, slots=True)
class Page:
    """Part of a list. `more` != "" asks for the next part; the version is of the whole list."""

    items: list[Object]
    resource_version: str
    more: str = ""


class PodApi:
    @classmethod
    async def connect(
        cls, *, kubeconfig: str, namespace: str, qps: float = 50.0, burst: int = 100
    ) -> Self:
        """`kubeconfig` is a path, "" = the service account of the pod this runs in."""
        raise NotImplementedError

    async def close(self) -> None: ...

    async def create(self, manifest: Object) -> Object:
        """A pod. Raises Taken, Denied, Invalid, ApiDown."""
        raise NotImplementedError

    async def get(self, name: str) -> Object | None:
        """A pod, None when there is none."""
        raise NotImplementedError

    async def delete(self, name: str, *, uid: str, grace_seconds: int | None = None) -> None:
        """A pod, if it still is that one. Gone already, or another uid: fine."""
        raise NotImplementedError

    async def list(
        self, resource: Resource, *, selector: str = "", more: str = "", limit: int = 500
    ) -> Page:
        raise NotImplementedError

    def watch(
        self, resource: Resource, *, resource_version: str, selector: str = ""
    ) -> AsyncIterator[tuple[str, Object]]:
        """("ADDED" | "MODIFIED" | "DELETED" | "BOOKMARK", object) until the server ends it in its
        time. Raises Expired, ApiDown."""
        raise NotImplementedError

    def log(
        self, name: str, *, follow: bool, limit_bytes: int | None = None
    ) -> AsyncIterator[bytes]:
        """What container `task` of a pod wrote, from its start."""
        raise NotImplementedError

    async def may(
        self, verb: str, resource: str, subresource: str = "", *, namespaced: bool = True
    ) -> bool:
        """Whether this agent is allowed to."""
        raise NotImplementedError

    async def healthy(self) -> None:
        """Returns when the API server says it is ready; raises ApiDown."""
        raise NotImplementedError
