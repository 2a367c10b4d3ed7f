"""What `whimbrel up` is told of single regions: a kubeconfig, a file of the agent's settings.

Made by `up` from its options before anything starts; `parts.py` turns it into an agent's
variables. Which settings there are and which go together is known to the agent alone: it is asked.
"""

import json
import os
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from whimbrel.errors import InvalidInput, Refused

OURS = ("cluster", "region", "router", "data_dir", "otlp_endpoint")
"""Settings that `up` decides: an agent that is told otherwise would not belong to it."""
PATHS = ("kubeconfig", "pod_template")
CHECK_SECONDS = 60.0
"""For the agent's own look at its settings, which takes half a second. Shorter refuses a start on a
busy machine."""


@dataclass(frozen=True, slots=True)
class Agent:
    """`settings` are texts as they stand in variables; `options` are those of `whimbrel up` that
    they came from, with absolute paths."""

    options: Sequence[str] = ()
    settings: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)

    @property
    def in_kubernetes(self) -> bool:
        return self.settings.get("compute") == "kubernetes"

    @property
    def kubeconfig(self) -> str | None:
        return self.settings.get("kubeconfig")


PROCESSES = Agent()


def from_options(kubeconfigs: Sequence[str], settings_files: Sequence[str]) -> Mapping[str, Agent]:
    """From REGION=FILE each; InvalidInput names the option, the file and what is wrong with it."""
    clusters = _pairs("--kubeconfig", kubeconfigs)
    files = _pairs("--agent-settings", settings_files)
    return {
        region: _agent(region, clusters.get(region), files.get(region))
        for region in dict.fromkeys((*clusters, *files))
    }


def _agent(region: str, kubeconfig: Path | None, file: Path | None) -> Agent:
    options: list[str] = []
    settings: dict[str, str] = {}
    if file is not None:
        options += ["--agent-settings", f"{region}={file}"]
        settings = _settings_of(file)
    if kubeconfig is not None:
        options += ["--kubeconfig", f"{region}={kubeconfig}"]
        if settings.get("compute", "kubernetes") != "kubernetes" or "kubeconfig" in settings:
            raise InvalidInput(
                f"{file}: compute or kubeconfig contradicts --kubeconfig",
                remedy="leave them out of the file, or leave the option out",
            )
        settings |= {"compute": "kubernetes", "kubeconfig": str(kubeconfig)}
    if settings.get("compute") == "kubernetes":
        if not settings.get("kubeconfig"):
            raise InvalidInput(
                f"{file}: compute = kubernetes needs a kubeconfig",
                remedy=f"name it in the file, or with --kubeconfig {region}=FILE",
            )
        _check_kubeconfig(Path(settings["kubeconfig"]))
        # Nobody would end pods of a federation that is gone: as with processes, `down` ends the
        # work. The next `up` runs it again.
        settings = {"kill_workers_at_stop": "true", **settings}
    return Agent(options, settings)


def _pairs(option: str, texts: Sequence[str]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for text in texts:
        region, equals, file = text.partition("=")
        if not (region and equals and file):
            raise InvalidInput(f"{option} {text!r} is not REGION=FILE")
        if region in found:
            raise InvalidInput(f"{option} names the region {region} twice")
        found[region] = Path(file).expanduser().absolute()
    return found


def _settings_of(file: Path) -> dict[str, str]:
    try:
        content: dict[str, Any] = tomllib.loads(file.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidInput(f"--agent-settings {file} can't be read: {error}") from error
    for name in OURS:
        if name in content:
            raise InvalidInput(
                f"{file}: {name} is decided by `whimbrel up`", remedy="remove it from the file"
            )
    for name in PATHS:
        if isinstance(path := content.get(name), str) and path:
            content[name] = str(file.parent / Path(path).expanduser())
    return {name: _text(value) for name, value in content.items()}


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _check_kubeconfig(path: Path) -> None:
    try:
        content: Any = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        said = str(error).splitlines()[0]
        raise InvalidInput(f"the kubeconfig {path} can't be read: {said}") from error
    contexts = _names(content, "contexts")
    if not _names(content, "clusters") or not contexts:
        raise InvalidInput(f"{path} is no kubeconfig: it names no cluster or no context")
    if content.get("current-context") not in contexts:
        raise InvalidInput(
            f"the kubeconfig {path} has no current context",
            remedy=f"choose one: kubectl --kubeconfig {path} config use-context {contexts[0]}",
        )


def _names(content: Any, kind: str) -> list[str]:
    try:
        return [str(item["name"]) for item in content[kind]]
    except (TypeError, KeyError):
        return []


def check(settings: Mapping[str, Mapping[str, str]], *, servers: Path) -> None:
    """Asks the agent of this version about the whole settings of each region."""
    path = os.pathsep.join(filter(None, (str(servers), os.environ.get("PYTHONPATH", ""))))
    try:
        done = subprocess.run(
            [sys.executable, "-m", "data_plane_agent.settings_check"],
            input=json.dumps(settings),
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            timeout=CHECK_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise Refused("the agent did not say what it thinks of its settings in time") from error
    if done.returncode == 2 and done.stdout:
        lines = done.stdout.strip().splitlines()
        raise InvalidInput("settings of agents: " + "\n  ".join(lines), remedy=_remedy(lines))
    if done.returncode != 0:
        raise Refused(f"settings of agents could not be checked: {done.stderr.strip()[-800:]}")


def _remedy(lines: Sequence[str]) -> str:
    if any("missing" in line or "store" in line for line in lines):
        return "give them in a file: whimbrel up --agent-settings REGION=FILE.toml"
    return ""


# -- what the last run of a folder had ------------------------------------------------------------


def remember(file: Path, regions: Sequence[str], agents: Mapping[str, Agent]) -> None:
    """Which options each region had when it was last started; not what the files say, they may hold
    keys."""
    kept = {region: given for region, given in _remembered(file).items() if region not in regions}
    for region, agent in agents.items():
        kept[region] = {"kubernetes": agent.in_kubernetes, "options": list(agent.options)}
    file.write_text(json.dumps(kept, indent=2) + "\n")


def _remembered(file: Path) -> dict[str, dict[str, Any]]:
    try:
        return json.loads(file.read_text())
    except FileNotFoundError:
        return {}


def left_out(file: Path, regions: Sequence[str], agents: Mapping[str, Agent]) -> Sequence[str]:
    """A line about each region that was given options in this folder and is left out now. Refused
    for a cluster that would come back as processes: its runs are in pods."""
    told: list[str] = []
    for region, given in _remembered(file).items():
        again = shlex.join(given["options"])
        if region not in regions:
            told.append(f"{region} is left out this time; to have it again: {again}")
        elif given["kubernetes"] and not agents.get(region, PROCESSES).in_kubernetes:
            raise Refused(
                f"{region} was a Kubernetes cluster when this folder was last used",
                remedy=f"give it again: {again}; or name another region or folder",
            )
    return told
