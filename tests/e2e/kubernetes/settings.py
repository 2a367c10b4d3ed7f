"""What `whimbrel up` is told of the clusters: a kubeconfig and the agent's settings for each.

Called by conftest.py and __main__.py once the clusters are up; the files lie in the clusters' own
folders and go with them.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.e2e.kubernetes.cluster import Cluster


def up_options(clusters: Sequence[Cluster], **more: str) -> list[str]:
    """Options of `whimbrel up`, in pairs; `more` are further settings of every agent."""
    options: list[str] = []
    for cluster in clusters:
        settings = _write(cluster, cluster.agent_settings(clusters) | more)
        options += ["--kubeconfig", f"{cluster.name}={cluster.agent_kubeconfig()}"]
        options += ["--agent-settings", f"{cluster.name}={settings}"]
    return options


def _write(cluster: Cluster, settings: dict[str, Any]) -> Path:
    path = cluster.folder / "agent.toml"
    path.touch(mode=0o600)
    path.write_text(_toml(settings))
    return path


def _toml(settings: dict[str, Any]) -> str:
    """Strings and one table of tables: a JSON string is a TOML string."""
    lines: list[str] = []
    tables: list[str] = []
    for key, value in settings.items():
        if isinstance(value, str):
            lines.append(f"{key} = {json.dumps(value)}")
            continue
        for name, table in value.items():
            tables.append(f"\n[{key}.{json.dumps(name)}]")
            tables += [f"{inner} = {json.dumps(text)}" for inner, text in table.items()]
    return "\n".join([*lines, *tables, ""])
