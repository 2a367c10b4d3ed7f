"""Which endpoint, project and domain: flags over WHIMBREL_* over ./whimbrel.toml over the user's
file.

Called by every command that speaks to an endpoint; without any of them the federation of this
folder is meant.
"""

import json
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from whimbrel.errors import InvalidInput

DEFAULT_ENDPOINT = "127.0.0.1:8470"
NAMES = ("endpoint", "project", "domain")


@dataclass(frozen=True, slots=True)
class Settings:
    """`source` says of each where it came from, for `whimbrel doctor`."""

    endpoint: str
    project: str
    domain: str
    source: Mapping[str, str]


def _read(path: Path) -> dict[str, str]:
    try:
        content: dict[str, Any] = tomllib.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidInput(
            f"{path} can't be read: {error}", remedy="correct or remove it"
        ) from error
    for name, value in content.items():
        if name not in NAMES or not isinstance(value, str):
            raise InvalidInput(
                f"{path}: {name} is no setting", remedy=f"text settings are {', '.join(NAMES)}"
            )
    return content


def _sandbox(folder: Path) -> dict[str, str]:
    try:
        return {
            "endpoint": json.loads((folder / ".whimbrel" / "sandbox.json").read_text())["endpoint"]
        }
    except (OSError, ValueError, KeyError):
        return {}


def load(
    flags: Mapping[str, str | None],
    *,
    environment: Mapping[str, str] = os.environ,
    folder: Path | None = None,
    home: Path | None = None,
) -> Settings:
    folder = folder or Path.cwd()
    config = Path(
        environment.get("WHIMBREL_CONFIG")
        or (home or Path.home()) / ".config" / "whimbrel" / "config.toml"
    )
    layers: list[tuple[str, Mapping[str, str | None]]] = [
        ("flag", flags),
        ("environment", {n: environment.get(f"WHIMBREL_{n.upper()}") for n in NAMES}),
        ("./whimbrel.toml", _read(folder / "whimbrel.toml")),
        (str(config), _read(config)),
        ("./.whimbrel/sandbox.json", _sandbox(folder)),
        ("default", {"endpoint": DEFAULT_ENDPOINT, "project": "default", "domain": "development"}),
    ]
    chosen: dict[str, str] = {}
    source: dict[str, str] = {}
    for name in NAMES:
        where, value = next((label, v) for label, layer in layers if (v := layer.get(name)))
        chosen[name], source[name] = value, where
    return Settings(chosen["endpoint"], chosen["project"], chosen["domain"], source)
