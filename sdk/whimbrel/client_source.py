"""Files and workflows of a user -> what the registry takes: specifications, a code archive, a
version.

Called by the client and the command line. Pure but for reading files; hands to `compiler.py` and
`bundle.py`.
"""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from whimbrel.errors import InvalidInput
from whimbrel.spec import Interface, PlacementPolicy, WorkflowSpec, digest, sha256

VERSION_DIGITS = 12
"""Of a derived version: enough that two of one project never meet, short enough to read aloud."""


@dataclass(frozen=True, slots=True)
class Source:
    """Ready to be registered; `version` is derived from code and meaning."""

    workflows: tuple[WorkflowSpec, ...]
    bundle: str
    data: bytes
    version: str


@dataclass(frozen=True, slots=True)
class Loaded:
    """A user's file, imported."""

    path: Path
    module: ModuleType

    def workflows(self) -> tuple[Any, ...]:
        """Those written in this very file, in order."""
        found = members_of(list(vars(self.module).values()), workflow_class())
        return tuple(
            item
            for item in dict.fromkeys(found)
            if item.function.__module__ == self.module.__name__
        )

    def workflow(self, name: str) -> Any:
        found = {item.short_name: item for item in self.workflows()}
        if name in found:
            return found[name]
        if hasattr(self.module, name):
            raise InvalidInput(f"{self.path}: {name} is no workflow", remedy=_offer(found))
        raise InvalidInput(f"{self.path} has no workflow {name!r}", remedy=_offer(found))


def workflow_class() -> type[Any]:
    from whimbrel.workflow import Workflow

    return Workflow  # pyright: ignore[reportUnknownVariableType] generic over a signature nobody knows here


def members_of(members: list[Any], kind: type[Any]) -> list[Any]:
    return [item for item in members if isinstance(item, kind)]


def _offer(found: Mapping[str, Any]) -> str:
    return f"it has: {', '.join(found)}" if found else "decorate a function with @workflow"


def load(path: Path) -> Loaded:
    """Raises InvalidInput when there is no such file, or it raises on import, with the line."""
    from whimbrel.bundle import load_file

    return Loaded(path, load_file(path))


def prepare(source: Any) -> Source:
    """A workflow, or every workflow of a loaded file or a module."""
    from whimbrel.bundle import make_bundle
    from whimbrel.compiler import compile_workflow

    workflows: tuple[Any, ...]
    match source:
        case Loaded():
            workflows = source.workflows()
        case ModuleType():
            workflows = Loaded(Path(source.__file__ or "?"), source).workflows()
        case _ if isinstance(source, workflow_class()):
            workflows = (source,)
        case _:
            raise InvalidInput(
                f"{source!r} can't be registered", remedy="give a workflow or a module with some"
            )
    if not workflows:
        where = source.path if isinstance(source, Loaded) else source
        raise InvalidInput(f"{where} has no workflow", remedy=_offer({}))
    bundle, data = make_bundle(inspect.getfile(workflows[0].function))
    specs = tuple(compile_workflow(item, bundle=bundle) for item in workflows)
    meaning = sha256("\n".join([bundle, *(digest(item) for item in specs)]))
    return Source(specs, bundle, data, meaning[:VERSION_DIGITS])


def input_forms(workflow: Any, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Python values as JSON forms. Files can't be given: their bytes would need a store of a
    region."""
    from whimbrel import values

    kinds: Mapping[str, Any] = workflow.interface.inputs
    if unknown := [name for name in inputs if name not in kinds]:
        raise InvalidInput(
            f"{workflow.short_name} has no input {unknown[0]!r}",
            remedy=f"its inputs are: {', '.join(kinds) or 'none'}",
        )
    return {
        name: values.to_json(value, kinds[name], what=f"the input {name!r}")
        for name, value in inputs.items()
    }


def interface_of(workflow: Any) -> Interface:
    """Compiles it, so that a graph that can't be is refused before anything else is asked."""
    from whimbrel.compiler import compile_workflow

    return compile_workflow(workflow, bundle="").interface


def placement_of(workflow: Any) -> PlacementPolicy:
    return workflow.placement.to_spec() if workflow.placement else PlacementPolicy()


def run_here(workflow: Any, forms: Mapping[str, Any]) -> dict[str, Any]:
    """JSON forms in, JSON forms out; in this process."""
    from whimbrel import local

    return local.run_here(workflow, forms)
