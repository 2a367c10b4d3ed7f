"""`whimbrel register`: every workflow of some files becomes an immutable version at the
endpoint."""

from pathlib import Path
from typing import Annotated

import typer

from whimbrel.cli import connect, show
from whimbrel.cli.connect import Domain, Endpoint, Output, Project
from whimbrel.cli.show import Form


def register(
    paths: Annotated[
        list[Path], typer.Argument(help="Python files with workflows.", metavar="PATH...")
    ],
    version: Annotated[
        str, typer.Option("--version", help="Its name; derived from code and meaning if not given.")
    ] = "",
    output: Output = Form.TABLE,
    endpoint: Endpoint = None,
    project: Project = None,
    domain: Domain = None,
) -> None:
    """Store workflows as versions. The same again changes nothing; another meaning is refused.

    Example: whimbrel register pipelines/digits.py --version v1
    """
    from whimbrel import client_source

    made = [client_source.prepare(client_source.load(path)) for path in paths]
    with connect.client(endpoint, project, domain) as client:
        answers = [item for source in made for item in client.register(source, version=version)]
    if output is Form.TABLE:
        show.table(
            ("workflow", "version", "digest", ""),
            [
                (item.name, item.version, item.digest[:12], "new" if item.created else "known")
                for item in answers
            ],
        )
    else:
        show.document(
            [
                {
                    "workflow": item.name,
                    "version": item.version,
                    "digest": item.digest,
                    "created": item.created,
                }
                for item in answers
            ],
            output,
        )
