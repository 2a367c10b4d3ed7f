"""`whimbrel run`: a workflow from a file, here in this process or at the endpoint.

Options for the inputs are made from the workflow's own interface; nothing is sent before they fit.
"""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from whimbrel.cli import connect, execution, inputs, show
from whimbrel.cli.connect import Domain, Endpoint, Output, Project
from whimbrel.cli.show import Form
from whimbrel.errors import InvalidInput
from whimbrel.spec import Interface, Mode, PlacementPolicy

CONTEXT: dict[str, Any] = {
    "allow_extra_args": True,
    "ignore_unknown_options": True,
    "help_option_names": [],
}


def run(
    context: typer.Context,
    file: Annotated[Path | None, typer.Argument(help="A Python file.", metavar="FILE")] = None,
    workflow: Annotated[
        str | None, typer.Argument(help="A workflow in it.", metavar="NAME")
    ] = None,
    remote: Annotated[bool, typer.Option("--remote", help="At the endpoint, not here.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Until it has ended.")] = False,
    follow: Annotated[bool, typer.Option("--follow", help="Show it live; waits too.")] = False,
    document: Annotated[
        Path | None, typer.Option("--inputs", help="A JSON object of inputs.", metavar="FILE.json")
    ] = None,
    version: Annotated[
        str, typer.Option("--version", help="Register under this name instead of a derived one.")
    ] = "",
    name: Annotated[str, typer.Option("--name", help="Of the execution.")] = "",
    region: Annotated[
        list[str] | None,
        typer.Option("--region", help="Where it may run, in order of preference; globs."),
    ] = None,
    mode: Annotated[
        str | None, typer.Option("--mode", help="idempotent, exclusive or pinned.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check and place, start nothing.")
    ] = False,
    asked_help: Annotated[
        bool, typer.Option("--help", "-h", help="This, and the workflow's inputs.")
    ] = False,
    output: Output = Form.TABLE,
    endpoint: Endpoint = None,
    project: Project = None,
    domain: Domain = None,
) -> None:
    """Run a workflow of a file: here, or with --remote at the endpoint.

    Each input is an option: --NAME VALUE.

    Example: whimbrel run pipelines/digits.py digits --remote --follow --depth 3
    """
    if file is None or workflow is None:
        raise _usage(context, asked=asked_help, interface=None)
    from whimbrel import client_source

    loaded = client_source.load(file).workflow(workflow)
    interface = client_source.interface_of(loaded)
    if asked_help:
        raise _usage(context, asked=True, interface=interface)
    given = inputs.forms(interface, inputs.split_options(context.args), _document(document))
    if remote or dry_run:
        policy = _policy(loaded, region, mode)
        with connect.client(endpoint, project, domain) as client:
            (known,) = client.register(loaded, version=version)
            launched = client.launch(
                known.name, given, version=known.version, name=name, placement=policy,
                dry_run=dry_run,
            )  # fmt: skip
            _remote(launched, wait=wait, follow=follow, dry_run=dry_run, output=output)
        return
    for flag, value in (("--wait", wait), ("--follow", follow), ("--region", region)):
        if value:
            raise InvalidInput(f"{flag} is for runs at the endpoint", remedy="add --remote")
    _here(loaded, given, output)


def _usage(context: typer.Context, *, asked: bool, interface: Interface | None) -> Exception:
    text = context.get_help()
    if interface is not None:
        lines = [
            f"  --{item.name} {inputs.describe(item.schema).upper()}"
            + ("" if item.required else f"  [default: {json.dumps(item.default)}]")
            for item in interface.inputs
        ]
        text += "\n\nInputs of the workflow:\n" + ("\n".join(lines) or "  none")
    if asked:
        show.out().print(text, markup=False)
        return typer.Exit(0)
    return InvalidInput(
        "which file and which workflow?", remedy="write: whimbrel run FILE.py NAME [--input value]"
    )


def _document(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InvalidInput(f"{path} can't be read as JSON: {error}") from error
    if not isinstance(content, dict):
        raise InvalidInput(f"{path} holds no JSON object", remedy='write {"input": value, ...}')
    return content  # pyright: ignore[reportUnknownVariableType] whatever JSON has: checked by type next


def _policy(loaded: Any, regions: list[str] | None, mode: str | None) -> PlacementPolicy | None:
    """The workflow's own, with what the flags change; None when they change nothing."""
    from dataclasses import replace

    from whimbrel import client_source

    if mode is not None and mode not in tuple(Mode):
        raise InvalidInput(f"there is no mode {mode!r}", remedy=f"one of {', '.join(Mode)}")
    if not regions and mode is None:
        return None
    policy = client_source.placement_of(loaded)
    if regions:
        policy = replace(policy, regions=tuple(regions))
    return policy if mode is None else replace(policy, mode=Mode(mode))


def _remote(launched: Any, *, wait: bool, follow: bool, dry_run: bool, output: Form) -> None:
    view = launched.view
    if dry_run:
        if output is Form.TABLE:
            show.say(
                f"would run in {view.cluster}" if view.cluster else f"would wait: {view.reason}"
            )
            execution.placements(view)
        else:
            show.document(view.as_json(), output)
        return
    show.say(f"launched {view.name} ({view.workflow}, version {view.version})")
    if follow:
        view = execution.watched(launched)
    elif wait:
        view = execution.awaited(launched)
    match output, wait, follow:
        case Form.TABLE, False, False:
            show.out().print(view.name)
        case Form.TABLE, _, True:
            execution.outcome(view)
        case _:
            execution.result(view, output)
    if wait or follow:
        raise typer.Exit(execution.exit_code(view))


def _here(loaded: Any, given: dict[str, Any], output: Form) -> None:
    from whimbrel import client_source

    outputs = client_source.run_here(loaded, given)
    if output is Form.TABLE:
        for key, value in outputs.items():
            show.out().print(f"{key} = {value}", markup=False)
    else:
        show.document({"outputs": outputs}, output)
