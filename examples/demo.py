"""What `make demo` runs: three regions, a real pipeline, and the loss of the region it runs in.

Starts the embedded federation in a temporary folder, kills the region while models train, and
shows how the run ends.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.rule import Rule
from whimbrel import Client
from whimbrel.cli import execution as execution_commands
from whimbrel.cli import show, trace
from whimbrel.cli.follow import Story
from whimbrel.client_views import ExecutionView

PIPELINE = Path(__file__).with_name("digits.py")
WORKFLOW = "digits"
SPANS_SECONDS = 2.0
"""For the last spans to arrive; fewer may show a tree without its newest leaves."""
console = show.out()


def whimbrel(*arguments: str) -> None:
    done = subprocess.run([sys.executable, "-m", "whimbrel.cli", *arguments], text=True)
    if done.returncode:
        sys.exit(done.returncode)


def training_in(view: ExecutionView) -> str | None:
    """The cluster in which a model is being trained right now."""
    for node in view.nodes:
        if node.phase == "RUNNING" and "train" in node.task:
            return node.cluster
    return None


def follow_and_kill(client: Client, name: str, data: Path) -> tuple[ExecutionView, str]:
    """Follows the run to its end; the region that trains is killed once, in the middle."""
    story, killed = Story(console), ""
    execution = client.get(name)
    for view in execution.watch():
        story.tell(view)
        region = training_in(view)
        if region and not killed:
            killed = region
            console.print(Rule(f"killing {region}: its agent, its tasks, its store", style="red"))
            whimbrel("sandbox", "kill", region, "--data-dir", str(data))
    return execution.view, killed


def tries(attempt: int) -> str:
    return "computed once" if attempt == 1 else "was running when the region died: begun again"


def report(client: Client, view: ExecutionView, data: Path) -> None:
    console.print(Rule("nodes"))
    for node in view.nodes:
        why = (node.lineage or tries(node.attempt)).replace(f"{data.as_uri()}/", "")
        console.print(f"  {node.id:<10} {node.phase:<10} {node.cluster:<9} {why}", markup=False)
    console.print(Rule("placements, with a verdict for every cluster"))
    execution_commands.placements(view)
    time.sleep(SPANS_SECONDS)
    console.print(Rule("trace"))
    console.print(trace.tree(client.get(view.name).trace()))
    console.print(Rule("outputs"))
    for key, value in (view.outputs or {}).items():
        console.print(f"  {key} = {json.dumps(value)}", markup=False)


def run(data: Path) -> int:
    whimbrel("up", "--data-dir", str(data), "--ports", "auto", "--preset", "test", "--detach")
    endpoint = json.loads((data / "sandbox.json").read_text())["endpoint"]
    name = "digits-demo"
    whimbrel(
        "run", str(PIPELINE), WORKFLOW, "--remote", "--name", name, "--endpoint", endpoint
    )  # fmt: skip
    with Client(endpoint) as client:
        view, killed = follow_and_kill(client, name, data)
        report(client, view, data)
    moved = bool(killed) and view.cluster != killed
    good = view.phase == "SUCCEEDED" and moved
    console.print(Rule(style="green" if good else "red"))
    if good:
        console.print(
            f"{name} SUCCEEDED in {view.cluster}, although {killed} was lost while it trained"
        )
        console.print(f"its data: {data}")
    elif not killed:
        console.print("the run ended before a region could be killed", style="red")
    else:
        console.print(f"{name} is {view.phase} in {view.cluster}", style="red")
    return 0 if good else 1


def main() -> int:
    data = Path(tempfile.mkdtemp(prefix="whimbrel-demo-"))
    try:
        return run(data)
    finally:
        whimbrel("down", "--data-dir", str(data))


if __name__ == "__main__":
    sys.exit(main())
