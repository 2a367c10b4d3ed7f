"""`whimbrel region`: where clusters are, and emptying all of one region."""

from collections import defaultdict
from typing import Annotated

import typer

from whimbrel.cli import connect, moves, show
from whimbrel.cli.connect import Detach, Domain, DryRun, Endpoint, Output, Project
from whimbrel.cli.show import Form
from whimbrel.client_views import ClusterView

app = typer.Typer(help="Regions: list, drain.", no_args_is_help=True)


@app.command("list")
def list_(
    output: Output = Form.TABLE,
    endpoint: Endpoint = None,
    project: Project = None,
    domain: Domain = None,
) -> None:
    """Every region that has a cluster.

    Example: whimbrel region list
    """
    with connect.client(endpoint, project, domain) as client:
        clusters = client.clusters()
    regions: dict[str, list[ClusterView]] = defaultdict(list)
    for one in clusters:
        regions[one.region].append(one)
    found = [
        {
            "region": name,
            "clusters": [one.name for one in here],
            "alive": sum(bool(one.alive) for one in here),
            "executions": sum(one.owned_executions for one in here),
        }
        for name, here in sorted(regions.items())
    ]
    if output is not Form.TABLE:
        show.document(found, output)
        return
    rows = [
        (
            name,
            f"{sum(bool(one.alive) for one in here)} of {len(here)}",
            ", ".join(one.name for one in here),
            str(sum(one.owned_executions for one in here)),
        )
        for name, here in sorted(regions.items())
    ]
    show.table(("region", "alive", "clusters", "executions"), rows)


@app.command()
def drain(
    name: Annotated[str, typer.Argument(help="Name of the region.", metavar="NAME")],
    dry_run: DryRun = False,
    detach: Detach = False,
    output: Output = Form.TABLE,
    endpoint: Endpoint = None,
    project: Project = None,
    domain: Domain = None,
) -> None:
    """Move every run out of a region; nothing new goes there until its clusters are uncordoned. A
    run that no other region takes is asked again for five minutes.

    Example: whimbrel region drain us-east --dry-run
    """
    with connect.client(endpoint, project, domain) as client:
        code = moves.drain(
            client, cluster="", region=name, dry_run=dry_run, detach=detach, form=output
        )
    raise typer.Exit(code)
