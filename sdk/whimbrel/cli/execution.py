"""`whimbrel execution`: what runs and what ran, why it is where it is, and its end.

Each command is one call of the client and one way to show the answer.
"""

import sys
from typing import Annotated, Any

import typer

from whimbrel.cli import connect, follow, moves, show, trace
from whimbrel.cli.connect import Detach, Domain, DryRun, Endpoint, Name, Output, Project
from whimbrel.cli.show import Form
from whimbrel.client_times import rfc3339
from whimbrel.client_views import ExecutionView
from whimbrel.errors import ExecutionFailed, InvalidInput
from whimbrel.spec import Phase

app = typer.Typer(help="Runs: list, look at, follow, move, cancel.", no_args_is_help=True)


@app.command("list")
def list_(
    phase: Annotated[
        list[str] | None, typer.Option("--phase", help="Only these phases, e.g. RUNNING.")
    ] = None,
    limit: Annotated[int, typer.Option(help="At most so many.", min=1, max=1000)] = 100,
    output: Output = Form.TABLE,
    endpoint: Endpoint = None,
    project: Project = None,
    domain: Domain = None,
) -> None:
    """Newest first.

    Example: whimbrel execution list --phase RUNNING
    """
    phases = [text.upper() for text in phase or ()]
    if unknown := [text for text in phases if text not in Phase.__members__]:
        raise InvalidInput(f"there is no phase {unknown[0]}", remedy=f"one of {', '.join(Phase)}")
    with connect.client(endpoint, project, domain) as client:
        views = client.list(phases=phases, limit=limit)
    if output is not Form.TABLE:
        show.document([view.as_json() for view in views], output)
        return
    show.table(
        ("name", "workflow", "version", "phase", "cluster", "epoch", "created", "took"),
        [
            (
                view.name,
                view.workflow,
                view.version,
                show.phase(view.phase.value),
                view.cluster,
                str(view.epoch),
                (rfc3339(view.created_ns) or "")[:19],
                show.seconds(view.started_ns, view.ended_ns),
            )
            for view in views
        ],
    )


@app.command()
def get(
    name: Name,
    output: Output = Form.TABLE,
    endpoint: Endpoint = None,
    project: Project = None,
    domain: Domain = None,
) -> None:
    """One run: phase, nodes, placements, outputs.

    Example: whimbrel execution get digits-1 -o json
    """
    with connect.client(endpoint, project, domain) as client:
        view = client.get(name).view
    result(view, output)


def result(view: ExecutionView, form: Form) -> None:
    """A run as a result on stdout."""
    if form is not Form.TABLE:
        show.document(view.as_json(), form)
        return
    show.out().print(follow.picture(view))
    outcome(view)


def outcome(view: ExecutionView) -> None:
    """How it ended: outputs, or whose failure it is."""
    console = show.out()
    if view.outputs is not None:
        for key, value in view.outputs.items():
            console.print(f"{key} = {value}", markup=False)
    if view.error is not None:
        where = f" in {view.error.node}" if view.error.node else ""
        console.print(f"{view.error.owner} error{where}: {view.error.message}", markup=False)
        if view.error.traceback:
            console.print(view.error.traceback, markup=False)


@app.command()
def watch(
    name: Name, endpoint: Endpoint = None, project: Project = None, domain: Domain = None
) -> None:
    """Follow a run until it ends.

    Example: whimbrel execution watch digits-1
    """
    with connect.client(endpoint, project, domain) as client:
        last = watched(client.get(name))
    raise typer.Exit(exit_code(last))


def watched(execution: Any) -> ExecutionView:
    """Shows a run to its end; an interrupt leaves the run alone and says how to follow it again."""
    try:
        follow.follow(execution.watch())
    except KeyboardInterrupt:
        show.say(f"the run goes on; follow it: whimbrel execution watch {execution.name}")
        raise
    return execution.view


def awaited(execution: Any) -> ExecutionView:
    """Waits without a picture; an interrupt leaves the run alone."""
    try:
        execution.wait()
    except ExecutionFailed:
        pass  # the caller shows what came of it
    except KeyboardInterrupt:
        show.say(f"the run goes on; follow it: whimbrel execution watch {execution.name}")
        raise
    return execution.view


def exit_code(view: ExecutionView) -> int:
    return 0 if view.phase is Phase.SUCCEEDED else 1


@app.command()
def logs(
    name: Name,
    node: Annotated[str, typer.Option("--node", help="Of this node only.")] = "",
    attempt: Annotated[int, typer.Option(help="Of this try; 0 = the newest.", min=0)] = 0,
    following: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the run has ended.")
    ] = False,
    endpoint: Endpoint = None,
    project: Project = None,
    domain: Domain = None,
) -> None:
    """What the tasks wrote: their stdout to stdout, their stderr to stderr.

    Example: whimbrel execution logs digits-1 --node train-1
    """
    with connect.client(endpoint, project, domain) as client:
        for chunk in client.get(name).logs(node=node, attempt=attempt, follow=following):
            sink = sys.stderr if chunk.stream == "stderr" else sys.stdout
            text = chunk.data.decode(errors="replace")
            if node:
                sink.write(text)
            else:
                sink.writelines(f"{chunk.node}: {line}" for line in text.splitlines(keepends=True))
            sink.flush()


@app.command()
def cancel(
    name: Name,
    reason: Annotated[str, typer.Option(help="Kept with the run.")] = "",
    endpoint: Endpoint = None,
    project: Project = None,
    domain: Domain = None,
) -> None:
    """End a run; what it has committed stays.

    Example: whimbrel execution cancel digits-1 --reason "wrong data"
    """
    with connect.client(endpoint, project, domain) as client:
        view = client.get(name).cancel(reason=reason)
    show.say(f"{view.name} is {view.phase}")


@app.command()
def migrate(
    name: Name,
    to: Annotated[
        str, typer.Option("--to", help="Cluster to move to; any other one if not given.")
    ] = "",
    dry_run: DryRun = False,
    detach: Detach = False,
    output: Output = Form.TABLE,
    endpoint: Endpoint = None,
    project: Project = None,
    domain: Domain = None,
) -> None:
    """Move a run to another cluster: finished steps are kept, a running one saves a checkpoint and
    goes on from it, or is run again. The plan says which.

    Example: whimbrel execution migrate digits-1 --to eu-west --dry-run
    """
    with connect.client(endpoint, project, domain) as client:
        execution = client.get(name)
        code = moves.migration(execution, to=to, dry_run=dry_run, detach=detach, form=output)
    raise typer.Exit(code)


@app.command()
def explain(
    name: Name,
    output: Output = Form.TABLE,
    endpoint: Endpoint = None,
    project: Project = None,
    domain: Domain = None,
) -> None:
    """Why a run is where it is, or why it waits: every placement, with a verdict for every cluster.

    Example: whimbrel execution explain digits-1
    """
    with connect.client(endpoint, project, domain) as client:
        view = client.get(name).view
    if output is not Form.TABLE:
        show.document([item.as_json() for item in view.placements], output)
        return
    reason = f" ({view.reason})" if view.reason else ""
    show.out().print(f"{view.name} is {view.phase}{reason}", markup=False)
    placements(view)
    lineage(view)


def lineage(view: ExecutionView) -> None:
    """What moves cost each node: kept, kept as a copy, resumed or computed again, and why."""
    if rows := [(node.id, node.phase, node.lineage) for node in view.nodes if node.lineage]:
        show.table(("node", "phase", "lineage"), rows)


def placements(view: ExecutionView) -> None:
    """Every decision as a table."""
    rows: list[tuple[str, ...]] = []
    for placement in view.placements:
        chosen = placement.cluster or f"nowhere: {placement.reason}"
        rows.append((str(placement.epoch), placement.cause, chosen, "", "", ""))
        for verdict in placement.verdicts:
            word = "accepted" if verdict.accepted else verdict.rule
            score = f"{verdict.score:.2f}" if verdict.accepted else ""
            rows.append(("", "", "", verdict.cluster, f"{word} {score}".strip(), verdict.why))
    show.table(("epoch", "cause", "placed", "cluster", "verdict", "why"), rows)


@app.command("trace")
def trace_(
    name: Name,
    output: Output = Form.TABLE,
    endpoint: Endpoint = None,
    project: Project = None,
    domain: Domain = None,
) -> None:
    """Where the time went: one tree from submit to commit, across a failover.

    Example: whimbrel execution trace digits-1
    """
    with connect.client(endpoint, project, domain) as client:
        execution = client.get(name)
        spans = execution.trace()
    if output is not Form.TABLE:
        show.document(
            {
                "trace_id": execution.view.trace_id,
                "spans": [
                    {
                        "span_id": span.span_id,
                        "parent_id": span.parent_id or None,
                        "name": span.name,
                        "service": span.service,
                        "start_ns": span.start_ns,
                        "end_ns": span.end_ns,
                        "error": span.error,
                        "attributes": dict(span.attributes),
                        "links": list(span.links),
                    }
                    for span in spans
                ],
            },
            output,
        )
        return
    if not spans:
        show.say(f"no spans of {name} are kept (yet); they arrive within a second of their end")
        return
    show.out().print(trace.tree(spans))
