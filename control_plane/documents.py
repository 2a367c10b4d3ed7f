"""JSON text of the shared values, as the rows keep them, and back.

Used wherever a row is written or read; the wire's forms are the codecs' business.
"""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from pydantic import TypeAdapter
from whimbrel.spec import Artifact, Failure, PlacementPolicy, Resources, canonical

from control_plane.routing.port import Verdict

POLICY = TypeAdapter(PlacementPolicy)
RESOURCES = TypeAdapter(Resources)
FAILURE = TypeAdapter(Failure)
ARTIFACT = TypeAdapter(Artifact)
ARTIFACTS = TypeAdapter(tuple[Artifact, ...])
NAMES = TypeAdapter(tuple[str, ...])
VERDICTS = TypeAdapter(tuple[Verdict, ...])


def text(value: Any) -> str:
    """One dataclass, or "" for None."""
    return "" if value is None else canonical(asdict(value))


def texts(values: Sequence[Any]) -> str:
    return canonical([asdict(value) for value in values]) if values else "[]"


def names_text(values: Sequence[str]) -> str:
    return canonical(list(values)) if values else ""


def names(document: str) -> tuple[str, ...]:
    return NAMES.validate_json(document) if document else ()


def policy(document: str) -> PlacementPolicy:
    return POLICY.validate_json(document)


def resources(document: str) -> Resources:
    return RESOURCES.validate_json(document)


def failure(document: str) -> Failure | None:
    return FAILURE.validate_json(document) if document else None


def artifact(document: str) -> Artifact | None:
    return ARTIFACT.validate_json(document) if document else None


def artifacts(document: str) -> tuple[Artifact, ...]:
    return () if document in ("", "[]") else ARTIFACTS.validate_json(document)


def verdicts(document: str) -> tuple[Verdict, ...]:
    return VERDICTS.validate_json(document) if document else ()
