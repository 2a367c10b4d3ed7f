"""`whimbrel cluster`: which clusters there are, whether they live, and whether new runs may go
there."""

from typing import Annotated

import typer

from whimbrel.cli import connect, show
from whimbrel.cli.connect import Domain, Endpoint, Output, Project
from whimbrel.cli.show import Form
from whimbrel.client_views import ClusterView

app = typer.Typer(help="Clusters: list, look at, cordon.", no_args_is_help=True)
Cluster = Annotated[str, typer.Argument(help="Name of the cluster.", metavar="NAME")]


def _table(clusters: tuple[ClusterView, ...]) -> None:
    show.table(
        ("name", "region", "state", "scheduling", "executions", "running", "queued", "free cpu"),
        [
            (
                item.name,
                item.region,
                show.phase(item.state),
                item.scheduling,
                str(item.owned_executions),
                str(item.running_tasks),
                str(item.queued_tasks),
                f"{item.free.cpu:g} of {item.allocatable.cpu:g}",
            )
            for item in clusters
        ],
    )


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
    else:
        show.document(cluster.as_json(), output)


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
