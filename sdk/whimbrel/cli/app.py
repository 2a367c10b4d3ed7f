"""The entry of `whimbrel`: assembles the commands, and turns every ending into an exit code.

0 done; 1 the execution FAILED or was ABORTED; 2 bad input or refused; 3 endpoint not reachable;
130 interrupted.
"""

import sys
from collections.abc import Sequence
from typing import Any

import typer

from whimbrel.cli import cluster, doctor, execution, region, register, run, sandbox, show, up
from whimbrel.errors import WhimbrelError

app = typer.Typer(
    name="whimbrel",
    help="One global endpoint, many regions, every run arrives once.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command(context_settings=run.CONTEXT)(run.run)
app.command()(register.register)
app.add_typer(execution.app, name="execution")
app.add_typer(cluster.app, name="cluster")
app.add_typer(region.app, name="region")
app.command()(up.up)
app.command()(up.down)
app.add_typer(sandbox.app, name="sandbox")
app.command()(doctor.doctor)

# typer may carry a click of its own, so the base of its usage errors is taken from one of them.
_USAGE: type[Exception] = typer.BadParameter.__mro__[2]


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
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except _USAGE as problem:
        usage: Any = problem
        usage.show(file=sys.stderr)
        return 2
    except BrokenPipeError:
        return 0  # whoever read the output has seen enough
