"""What a platform team adds to every pod, through a list of what it may add. Pure, but for reading
the file.

Read once by `compute.py`; merged into each manifest by `codec.py`. Whatever would weaken a pod
(containers, volumes, security contexts, service accounts, host anything) is not on the list.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import yaml
from whimbrel.errors import InvalidInput

from data_plane_agent.pods.api_errors import Object

METADATA = frozenset({"labels", "annotations"})
SPEC = frozenset({
    "nodeSelector", "tolerations", "priorityClassName", "runtimeClassName", "schedulerName",
    "imagePullSecrets", "affinity", "topologySpreadConstraints", "dnsPolicy", "dnsConfig",
})  # fmt: skip
OURS = "whimbrel.dev/"


def load(path: Path) -> Object:
    """Raises InvalidInput naming the field that may not be there."""
    try:
        found: Any = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise InvalidInput(f"pod template {path} can't be read: {error}") from error
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise InvalidInput(f"pod template {path} is no part of a pod: a table is needed")
    template = cast(Object, found)
    for name, allowed in (("metadata", METADATA), ("spec", SPEC)):
        part: Any = template.get(name) or {}
        if not isinstance(part, dict):
            raise InvalidInput(f"pod template {path}: {name} must be a table")
        for field in cast(Object, part):
            if field not in allowed:
                raise InvalidInput(
                    f"pod template {path}: {name}.{field} can't be set there",
                    remedy=f"what can: {', '.join(sorted(allowed))}",
                )
    if other := sorted(set(template) - {"metadata", "spec", "apiVersion", "kind"}):
        raise InvalidInput(f"pod template {path}: {other[0]} can't be set there")
    return template


def merged(manifest: Object, template: Mapping[str, object]) -> Object:
    """Ours wins where both speak; lists are joined; a preference of ours stays beside theirs."""
    metadata = cast(Object, template.get("metadata") or {})
    for field in METADATA & metadata.keys():
        theirs = {k: str(v) for k, v in metadata[field].items() if not k.startswith(OURS)}
        manifest["metadata"][field] = theirs | manifest["metadata"][field]
    spec = cast(Object, template.get("spec") or {})
    for field in SPEC & spec.keys():
        manifest["spec"][field] = _joined(spec[field], manifest["spec"].get(field))
    return manifest


def _joined(theirs: Any, ours: Any) -> Any:
    if ours is None:
        return theirs
    if isinstance(theirs, list) and isinstance(ours, list):
        return [*cast("list[Any]", ours), *cast("list[Any]", theirs)]
    if isinstance(theirs, dict) and isinstance(ours, dict):
        both = {**cast(Object, theirs)}
        for name, value in cast(Object, ours).items():
            both[name] = _joined(both.get(name), value)
        return both
    return ours
