"""How an error crosses the wire: a gRPC status with its details, and the whole of it as trailing
metadata.

Called by `service/rpc.py` on a server and by `client.py` here; needs no grpc, so both may import
it.
"""

import json

from whimbrel import errors
from whimbrel.errors import WhimbrelError

METADATA_KEY = "whimbrel-error-bin"
LIMIT_BYTES = 4096
"""Of each text: metadata has to fit into 8 KiB, larger ones are dropped by peers."""

_TYPES: dict[str, type[WhimbrelError]] = {
    kind.__name__: kind
    for kind in (
        errors.InvalidInput,
        errors.NotFound,
        errors.Conflict,
        errors.Refused,
        errors.TooLarge,
        errors.Fenced,
        errors.Unreachable,
    )
}
_BY_CODE = {kind.code: kind for kind in _TYPES.values()}
RETRYABLE_CODES = frozenset({"UNAVAILABLE", "DEADLINE_EXCEEDED"})


def payload(error: WhimbrelError) -> bytes:
    """The metadata's value."""
    return json.dumps(
        {
            "type": type(error).__name__,
            "message": error.message[:LIMIT_BYTES],
            "remedy": error.remedy[: LIMIT_BYTES // 4],
            "place": error.place,
        }
    ).encode()


def error_of(code: str, details: str, value: bytes | None = None) -> WhimbrelError:
    """The error that a status stands for; `code` is the status' name, `value` the metadata's if it
    came."""
    if value is not None:
        try:
            said = json.loads(value)
            kind = _TYPES[said["type"]]
            return kind(said["message"], remedy=said["remedy"], place=said["place"])
        except (ValueError, KeyError, TypeError):
            pass  # of a newer server: the status alone still says enough
    if code in RETRYABLE_CODES:
        return errors.Unreachable(details or code)
    kind = _BY_CODE.get(code)
    if kind is not None:
        return kind(details or code)
    return WhimbrelError(f"{code}: {details}" if details else code)
