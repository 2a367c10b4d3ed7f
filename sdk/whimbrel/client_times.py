"""Unix nanoseconds as people and scripts read them. Called by the views."""

from datetime import UTC, datetime


def rfc3339(ns: int) -> str | None:
    """RFC 3339 in UTC; None for "not yet"."""
    if not ns:
        return None
    return datetime.fromtimestamp(ns / 1e9, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"
