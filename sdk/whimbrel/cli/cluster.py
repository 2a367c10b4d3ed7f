"""`whimbrel cluster`: makes clusters known; which there are, whether they live and their compute
answers, what they can run at all, and whether new runs may go there."""

from typing import Annotated

import typer
from rich.text import Text

from whimbrel.cli import connect, moves, show
from whimbrel.cli.connect import Detach, Domain, DryRun, Endpoint, Output, Project
from whimbrel.cli.show import Form
from whimbrel.client_views import ClusterView

app = typer.Typer(help="Clusters: register, list, look at, cordon, drain.", no_args_is_help=True)
Cluster = Annotated[str, typer.Argument(help="Name of the cluster.", metavar="NAME")]


def _table(clusters: tuple[ClusterView, ...]) -> None:
    show.table(
        (
            "name", "region", "state", "compute", "scheduling", "executions", "running", "queued",
            "free cpu",
        ),
        [
            (
                item.name,
                item.region,
                show.phase(item.state),
                _compute(item),
                item.scheduling,
                str(item.owned_executions),
                str(item.running_tasks),
                str(item.queued_tasks),
                f"{item.free.cpu:g} of {item.allocatable.cpu:g}",
            )
            for item in clusters
        ],
    )  # fmt: skip
    for item in clusters:
        if item.ill:
            show.say(f"{item.name}: its compute is ill, no new runs go there: {item.ill}")


def _compute(cluster: ClusterView) -> Text:
    """Of the newest capacity the agent told; a lost agent tells nothing."""
    return show.phase("ILL" if cluster.ill else "OK" if cluster.alive else "")


def _details(cluster: ClusterView) -> None:
    free, whole = cluster.free, cluster.allocatable
    lines = [
        ("free memory", f"{free.mem_bytes / 2**30:.1f} of {whole.mem_bytes / 2**30:.1f} GiB"),
        ("free gpu", f"{free.gpu} of {whole.gpu}"),
    ]
    if cluster.offer is not None:
        offer = cluster.offer
        lines += [
            ("images", ", ".join(offer.images) or "any"),
            ("refused images", ", ".join(offer.refused_images) or "none"),
            ("secrets", ", ".join(offer.secrets) or "none"),
        ]
    lines += [(f"label {name}", value) for name, value in sorted(cluster.labels.items())]
    show.table(("of " + cluster.name, ""), lines)


@app.command("list")
def list_(
    output: Output = Form.TABLE,
    endpoint: Endpoint = None,
    project: Project = None,
    domain: Domain = None,
) -> None:
    """Every registered cluster.

    Example: whimbrel cluster list
    """
    with connect.client(endpoint, project, domain) as client:
        clusters = client.clusters()
    if output is Form.TABLE:
        _table(clusters)
    else:
        show.document([item.as_json() for item in clusters], output)


@app.command()
def get(
    name: Cluster,
    output: Output = Form.TABLE,
    endpoint: Endpoint = None,
    project: Project = None,
    domain: Domain = None,
) -> None:
    """One cluster.

    Example: whimbrel cluster get us-east -o json
    """
    with connect.client(endpoint, project, domain) as client:
        cluster = client.cluster(name)
    if output is Form.TABLE:
        _table((cluster,))
        _details(cluster)
    else:
        show.document(cluster.as_json(), output)


@app.command()
def register(
    name: Cluster,
    region: Annotated[
        str, typer.Option("--region", help="Where it is; the cluster's name if not given.")
    ] = "",
    endpoint: Endpoint = None,
    project: Project = None,
    domain: Domain = None,
) -> None:
    """Make a cluster known, so that its agent is let in. The same again changes nothing.

    Example: whimbrel cluster register us-east-1a --region us-east
    """
    with connect.client(endpoint, project, domain) as client:
        cluster = client.register_cluster(name, region=region or name)
    show.say(f"{cluster.name} is registered in {cluster.region} and {cluster.scheduling}")


@app.command()
def cordon(
    name: Cluster, endpoint: Endpoint = None, project: Project = None, domain: Domain = None
) -> None:
    """No new runs; what runs there goes on.

    Example: whimbrel cluster cordon us-east
    """
    with connect.client(endpoint, project, domain) as client:
        cluster = client.set_scheduling(name, scheduling="cordoned")
    show.say(f"{cluster.name} is {cluster.scheduling}")


@app.command()
def uncordon(
    name: Cluster, endpoint: Endpoint = None, project: Project = None, domain: Domain = None
) -> None:
    """New runs are welcome again.

    Example: whimbrel cluster uncordon us-east
    """
    with connect.client(endpoint, project, domain) as client:
        cluster = client.set_scheduling(name, scheduling="active")
    show.say(f"{cluster.name} is {cluster.scheduling}")


@app.command()
def drain(
    name: Cluster,
    dry_run: DryRun = False,
    detach: Detach = False,
    output: Output = Form.TABLE,
    endpoint: Endpoint = None,
    project: Project = None,
    domain: Domain = None,
) -> None:
    """Move every run elsewhere; nothing new goes there until it is uncordoned, which also ends a
    drain under way. A run that no other cluster takes is asked again for five minutes.

    Example: whimbrel cluster drain us-east --dry-run
    """
    with connect.client(endpoint, project, domain) as client:
        code = moves.drain(
            client, cluster=name, region="", dry_run=dry_run, detach=detach, form=output
        )
    raise typer.Exit(code)
