"""The options every command that speaks to an endpoint takes, and the client made from them."""

from typing import TYPE_CHECKING, Annotated

import typer

from whimbrel.cli import settings
from whimbrel.cli.show import Form

if TYPE_CHECKING:
    from whimbrel.client import Client

Endpoint = Annotated[str | None, typer.Option("--endpoint", help="host:port of the control plane.")]
Project = Annotated[str | None, typer.Option("--project", "-p", help="Project.")]
Domain = Annotated[str | None, typer.Option("--domain", "-d", help="Domain.")]
Output = Annotated[Form, typer.Option("-o", "--output", help="Form of the result.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only show what would move where.")]
Detach = Annotated[bool, typer.Option("--detach", help="Begin, and don't wait for the end.")]
Name = Annotated[str, typer.Argument(help="Name of the execution.", metavar="NAME")]


def client(endpoint: str | None, project: str | None, domain: str | None) -> "Client":
    from whimbrel.client import Client

    chosen = settings.load({"endpoint": endpoint, "project": project, "domain": domain})
    return Client(chosen.endpoint, project=chosen.project, domain=chosen.domain)
