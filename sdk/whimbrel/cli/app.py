"""The entry of `whimbrel`: assembles the commands, and turns every ending into an exit code.

0 done; 1 the execution FAILED or was ABORTED; 2 bad input or refused; 3 endpoint not reachable;
130 interrupted.
"""

import sys
from collections.abc import Sequence

import click
import typer

from whimbrel.cli import sandbox, show, up
from whimbrel.errors import WhimbrelError

app = typer.Typer(
    name="whimbrel",
    help="One global endpoint, many regions, every run arrives once.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command()(up.up)
app.command()(up.down)
app.add_typer(sandbox.app, name="sandbox")


def main(arguments: Sequence[str] | None = None) -> int:
    try:
        command = typer.main.get_command(app)
        answer = command.main(
            args=list(sys.argv[1:] if arguments is None else arguments),
            prog_name="whimbrel",
            standalone_mode=False,
        )
        return answer if isinstance(answer, int) else 0
    except WhimbrelError as problem:
        show.error(problem)
        return problem.exit_code
    except click.ClickException as problem:
        problem.show(file=sys.stderr)
        return 2
    except (KeyboardInterrupt, click.Abort):
        return 130
    except BrokenPipeError:
        return 0  # whoever read the output has seen enough
