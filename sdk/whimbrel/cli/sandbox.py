"""`whimbrel sandbox`: faults of a region of the embedded federation, for demonstrations.

Asks the supervisor, which owns the processes and the links.
"""

from pathlib import Path
from typing import Annotated, Any

import typer

from whimbrel.cli import show
from whimbrel.cli.federation import control
from whimbrel.cli.federation.folder import Folder
from whimbrel.cli.show import Form
from whimbrel.cli.up import DEFAULT_FOLDER, DataDir

app = typer.Typer(help="Faults of a region of the embedded federation.", no_args_is_help=True)
Region = Annotated[str, typer.Argument(help="A region of this federation.", metavar="REGION")]


def _ask(verb: str, data_dir: DataDir, region: str = "") -> dict[str, str]:
    return _answer(verb, data_dir, region)["regions"]


def _answer(verb: str, data_dir: Path, region: str) -> dict[str, Any]:
    return control.call(Folder(data_dir.resolve()), {"do": verb, "region": region})


@app.command()
def kill(region: Region, data_dir: DataDir = DEFAULT_FOLDER) -> None:
    """SIGKILL the agent and its tasks; its store can't be read any more. Of a Kubernetes region the
    agent alone: the cluster is yours.

    Example: whimbrel sandbox kill us-east
    """
    answer = _answer("kill", data_dir, region)
    what = "agent and tasks killed"
    if answer["compute"][region] == "kubernetes":
        what = "agent killed; the cluster, its pods and its store are yours and left alone"
    elif answer["own_store"][region]:
        what += ", store gone"
    show.say(f"{region}: {what}; whimbrel sandbox heal {region} undoes it")


@app.command()
def pause(region: Region, data_dir: DataDir = DEFAULT_FOLDER) -> None:
    """SIGSTOP the agent and its tasks.

    Example: whimbrel sandbox pause eu-west
    """
    _ask("pause", data_dir, region)
    show.say(f"{region}: paused; go on: whimbrel sandbox resume {region}")


@app.command()
def resume(region: Region, data_dir: DataDir = DEFAULT_FOLDER) -> None:
    """SIGCONT what `pause` stopped.

    Example: whimbrel sandbox resume eu-west
    """
    _ask("resume", data_dir, region)
    show.say(f"{region}: running again")


@app.command()
def cut(region: Region, data_dir: DataDir = DEFAULT_FOLDER) -> None:
    """Cut the link between agent and router, both ways; connections stay half-open.

    Example: whimbrel sandbox cut ap-south
    """
    _ask("cut", data_dir, region)
    show.say(f"{region}: link cut; mend it: whimbrel sandbox heal {region}")


@app.command()
def heal(region: Region, data_dir: DataDir = DEFAULT_FOLDER) -> None:
    """Undo every fault: store back, agent started, link up. Returns when the agent is heard again.

    Example: whimbrel sandbox heal us-east
    """
    _ask("heal", data_dir, region)
    show.say(f"{region}: whole again")


@app.command()
def status(
    data_dir: DataDir = DEFAULT_FOLDER,
    output: Annotated[Form, typer.Option("-o", "--output", help="Form.")] = Form.TABLE,
) -> None:
    """What runs, and which faults are in force.

    Example: whimbrel sandbox status -o json
    """
    folder = Folder(data_dir.resolve())
    regions = _ask("status", data_dir)
    sandbox = folder.sandbox()
    if output is not Form.TABLE:
        show.document({**sandbox, "states": regions}, output)
        return
    rows = [(name, str(pid), "up") for name, pid in sandbox["processes"].items() if "/" not in name]
    for region, state in regions.items():
        pid = sandbox["processes"].get(f"agent/{region}")
        rows.append((f"agent/{region}", str(pid or "-"), state))
    show.table(("process", "pid", "state"), rows)
    show.say(f"endpoint {sandbox['endpoint']}")
