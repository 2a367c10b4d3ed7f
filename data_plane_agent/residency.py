"""What a claim says of a run's data: which copies are read, where it may lie, whether it is told.
Pure.

Asked by `run.py` for every value it takes up and every end it hears; what must stay in the region
is written to its store by `beside.py`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from whimbrel.runtime_store import plain
from whimbrel.spec import ARTIFACT_KEY, Artifact, Outputs, Owner, canonical

from data_plane_agent import messages as m
from data_plane_agent.documents import artifact_in
from data_plane_agent.launcher import Broke, Finished, Logs, Saved, Started, Unplaceable

Told = Started | Saved | Finished | Broke | Unplaceable
"""What a launcher says of one attempt."""


@dataclass(frozen=True, slots=True)
class Residency:
    """`copies` by the address of the original; `regions` are globs, empty = anywhere; `secluded`:
    values and error texts stay in the region's store, whatever their size."""

    copies: Mapping[str, Artifact] = field(default_factory=dict[str, Artifact])
    regions: tuple[str, ...] = ()
    secluded: bool = False

    @staticmethod
    def of(claimed: m.Claimed) -> "Residency":
        return Residency(claimed.replicas, claimed.regions, claimed.offload)

    def values(self, value: Any) -> Any:
        """A JSON form as tasks are to see it: where its bytes are read, and may lie."""
        if not self.copies and not self.regions:
            return value
        return self._values(value)

    def _values(self, value: Any) -> Any:
        if (artifact := artifact_in(value)) is not None:
            return {ARTIFACT_KEY: plain(self.artifact(artifact))}
        match value:
            case dict():
                return {key: self._values(item) for key, item in value.items()}  # pyright: ignore[reportUnknownVariableType]  # JSON
            case list():
                return [self._values(item) for item in value]  # pyright: ignore[reportUnknownVariableType]  # JSON
            case _:
                return value

    def artifact(self, artifact: Artifact) -> Artifact:
        """The copy in place of the original. A limit that data came with stays."""
        if copy := self.copies.get(artifact.uri):
            artifact = replace(artifact, uri=copy.uri, region=copy.region)
        return replace(artifact, allowed_regions=artifact.allowed_regions or self.regions)

    def event(self, event: Told) -> Told:
        """With the word where what it made may lie, which travels with the data."""
        if not self.regions:
            return event
        match event:
            case Finished(outputs=outputs, logs=logs):
                return replace(event, outputs=self._outputs(outputs), logs=self._logs(logs))
            case Broke(logs=logs):
                return replace(event, logs=self._logs(logs))
            case Saved(artifact=artifact):
                return replace(event, artifact=self.artifact(artifact))
            case Started() | Unplaceable():
                return event

    def _outputs(self, outputs: Outputs) -> Outputs:
        value = outputs.value
        if value and outputs.artifacts:
            value = canonical(self.values(json.loads(value)))
        offloaded = outputs.offloaded and self.artifact(outputs.offloaded)
        made = tuple(map(self.artifact, outputs.artifacts))
        return replace(outputs, value=value, artifacts=made, offloaded=offloaded)

    def _logs(self, logs: Logs) -> Logs:
        return Logs(
            stdout=logs.stdout and self.artifact(logs.stdout),
            stderr=logs.stderr and self.artifact(logs.stderr),
        )

    def waits(self, event: Finished | Broke) -> bool:
        """Is the store asked before this is heard, for values that lie there or are to lie
        there?"""
        match event:
            case Finished(outputs=outputs):
                return outputs.offloaded is not None or self.secluded
            case Broke(failure=failure):
                # The platform's own words name no values; user code's may.
                return self.secluded and failure.owner is Owner.USER
