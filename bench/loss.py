"""SIGKILL of a region while runs are in it; how long each stage of the rescue took.

Called by `__main__`. Stages come from each run's own timeline, the end from the first line of the
task in another region; one clock, because it is one machine.
"""

import contextlib
import time
from collections import Counter, defaultdict
from pathlib import Path

from whimbrel import Client
from whimbrel.client import Execution
from whimbrel.client_views import ExecutionView

from bench.federation import Federation
from bench.work import Flows

PATIENCE_SECONDS = 120.0
"""For a rescue. A run that takes longer counts as lost, and the measure fails."""
STAGES = ("detect, fence to nobody", "place, fence", "assign, claim", "resume", "whole")


def _starts(folder: Path) -> dict[str, list[int]]:
    """Run -> when its task began, each time."""
    found: dict[str, list[int]] = defaultdict(list)
    path = folder / "starts"
    for line in path.read_text().splitlines() if path.exists() else ():
        name, at = line.split()
        found[name].append(int(at))
    return found


def _await_starts(folder: Path, names: list[str], count: int) -> dict[str, list[int]]:
    end = time.monotonic() + PATIENCE_SECONDS
    while True:
        found = _starts(folder)
        missing = [name for name in names if len(found[name]) < count]
        if not missing:
            return found
        if time.monotonic() > end:
            raise TimeoutError(f"{len(missing)} of {len(names)} runs did not begin: {missing[:3]}")
        time.sleep(0.02)


def stages(view: ExecutionView, killed: float, resumed_ns: int) -> dict[str, float]:
    """Seconds of each stage; what the timeline does not say is left out."""
    since = [entry for entry in view.timeline if entry.at_ns > killed * 1e9]
    found: dict[str, float] = {"whole": resumed_ns / 1e9 - killed}
    fences = [entry for entry in since if entry.kind == "fenced"]
    claimed = next((entry for entry in since if entry.kind == "claimed"), None)
    # The takeover fences twice: to nobody at once, then to the cluster that was chosen.
    if len(fences) < 2 or claimed is None:
        return found
    found["detect, fence to nobody"] = fences[0].at_ns / 1e9 - killed
    found["place, fence"] = (fences[-1].at_ns - fences[0].at_ns) / 1e9
    found["assign, claim"] = (claimed.at_ns - fences[-1].at_ns) / 1e9
    found["resume"] = (resumed_ns - claimed.at_ns) / 1e9
    return found


def one_loss(
    whole: Federation, client: Client, flows: Flows, *, folder: Path, runs: int
) -> dict[str, list[float]]:
    """Kills the region that holds most of `runs` runs; a sample a moved run, for each stage."""
    folder.mkdir(parents=True)
    executions: dict[str, Execution] = {}
    for index in range(runs):
        name = f"{folder.name}-{index}"
        inputs = {"folder": str(folder), "name": name}
        executions[name] = client.launch(flows.gated[0], inputs, version=flows.gated[1], name=name)
    found: dict[str, list[float]] = defaultdict(list)
    region = ""
    try:
        _await_starts(folder, list(executions), 1)
        places = {name: execution.refresh().region for name, execution in executions.items()}
        region = Counter(places.values()).most_common(1)[0][0]
        killed = whole.kill_agent(region)
        moved = [name for name, place in places.items() if place == region]
        resumed = _await_starts(folder, moved, 2)
        for name in moved:
            view = executions[name].refresh()
            for stage, seconds in stages(view, killed, resumed[name][1]).items():
                found[stage].append(seconds)
    finally:
        (folder / "open").touch()
        for execution in executions.values():
            with contextlib.suppress(TimeoutError):
                execution.wait(timeout=PATIENCE_SECONDS)
        if region:
            whole.heal(region)
    return found
