"""`whimbrel up` and `whimbrel down`: the embedded federation, in this terminal or in the
background.

Checks what can be checked before anything starts; the rest is the supervisor's.
"""

import asyncio
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated

import typer

from whimbrel.cli import show
from whimbrel.cli.federation.folder import Folder
from whimbrel.errors import InvalidInput, Unreachable

if TYPE_CHECKING:
    from whimbrel.cli.federation.parts import Plan

DEFAULT_FOLDER = Path(".whimbrel")
DEFAULT_REGIONS = ("us-east", "eu-west", "ap-south")
DETACHED_SECONDS = 90.0
"""For a federation in the background to be ready; a bit more than its supervisor allows itself."""
STOP_SECONDS = 60.0

DataDir = Annotated[
    Path, typer.Option("--data-dir", help="Where all its data lies.", metavar="DIR")
]


def up(
    region: Annotated[
        list[str] | None,
        typer.Option("--region", help="One agent each; us-east, eu-west, ap-south if not given."),
    ] = None,
    data_dir: DataDir = DEFAULT_FOLDER,
    preset: Annotated[
        str, typer.Option(help="How fast a loss is noticed: test (2 s), lan (5 s) or wan (10 s).")
    ] = "test",
    ports: Annotated[
        str, typer.Option(help="`fixed` (8470, 8471) or `auto`: any that are free.")
    ] = "fixed",
    routers: Annotated[int, typer.Option(help="Router replicas.", min=1, max=5)] = 1,
    kubeconfig: Annotated[
        list[str] | None,
        typer.Option(
            "--kubeconfig",
            help="This region's tasks run as pods of the cluster that FILE names.",
            metavar="REGION=FILE",
        ),
    ] = None,
    agent_settings: Annotated[
        list[str] | None,
        typer.Option(
            "--agent-settings",
            help="Further settings of this region's agent, as TOML: image, store, slots, ...",
            metavar="REGION=FILE",
        ),
    ] = None,
    detach: Annotated[
        bool, typer.Option("--detach", help="Return once it is ready, and go on in the background.")
    ] = False,
) -> None:
    """Start etcd, Temporal, control plane, router and one agent a region on this machine.

    Stopped and started again in the same folder it goes on where it was; options are given again.
    A region named by --kubeconfig or --agent-settings needs no --region. A database or etcd of your
    own: set WHIMBREL_CONTROL_PLANE_DATABASE_URL or WHIMBREL_ROUTER_ETCD.

    Example: whimbrel up --region us-east --region eu-west --ports auto --detach
    """
    from whimbrel.cli.federation import agents, parts

    if preset not in parts.PRESETS:
        raise InvalidInput(
            f"there is no preset {preset!r}", remedy=f"one of {', '.join(parts.PRESETS)}"
        )
    if ports not in ("fixed", "auto"):
        raise InvalidInput(f"--ports {ports!r} is neither fixed nor auto")
    parts.require_extra()
    given = agents.from_options(kubeconfig or (), agent_settings or ())
    regions = parts.check_regions((*(region or ()), *given) or DEFAULT_REGIONS)
    folder = Folder(data_dir.resolve())
    plan = parts.Plan(folder, regions, preset, routers, ports == "auto", given)
    if given:
        settings = {name: parts.agent_settings(plan, name) for name in given}
        agents.check(settings, servers=parts.servers_path())
    left_out = agents.left_out(folder.agents_file, regions, given)
    if detach:
        _detached(plan)
        return
    for line in left_out:
        show.say(line)
    _here(plan)


def _here(plan: "Plan") -> None:
    from whimbrel.cli.federation.agents import remember
    from whimbrel.cli.federation.supervisor import Supervisor, supervise

    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")

    def ready(supervisor: Supervisor, took: float) -> None:
        endpoint = supervisor.folder.sandbox()["endpoint"]
        show.say(f"ready in {took:.1f} s at {endpoint}: regions {', '.join(plan.regions)}")
        for region, why in supervisor.ill.items():
            show.say(f"warning: {region} gets no runs yet: {why}")
        show.say(f"logs: {plan.folder.logs}   stop: Ctrl-C, or whimbrel down")

    with plan.folder.locked():
        plan.folder.prepare()
        remember(plan.folder.agents_file, plan.regions, plan.agents)
        asyncio.run(supervise(plan, ready=ready))
    show.say("stopped; the data stays in " + str(plan.folder.root))


def _detached(plan: "Plan") -> None:
    folder = plan.folder
    with folder.locked():
        folder.prepare()
    command = [sys.executable, "-m", "whimbrel.cli", "up", "--data-dir", str(folder.root)]
    command += ["--preset", plan.preset, "--routers", str(plan.routers)]
    command += ["--ports", "auto" if plan.automatic_ports else "fixed"]
    for name in plan.regions:
        command += ["--region", name]
    for agent in plan.agents.values():
        command += agent.options
    path = folder.log("supervisor")
    with path.open("wb") as log:
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    deadline = time.monotonic() + DETACHED_SECONDS
    try:
        while child.poll() is None and time.monotonic() < deadline:
            # The pid tells this federation's file from one that a killed supervisor left.
            if (
                folder.sandbox_file.exists()
                and folder.sandbox()["processes"]["supervisor"] == child.pid
            ):
                show.say(path.read_text().strip())
                show.say(f"stop: whimbrel down --data-dir {folder.root}")
                return
            time.sleep(0.05)
    except KeyboardInterrupt:
        child.terminate()
        raise
    if child.returncode:
        sys.stderr.write(path.read_text())
        raise typer.Exit(child.returncode)
    child.terminate()
    raise Unreachable("the federation was not ready in time", remedy=f"look into {folder.logs}")


def down(
    data_dir: DataDir = DEFAULT_FOLDER,
    purge: Annotated[
        bool, typer.Option("--purge", help="Remove its data too: versions, runs, stores.")
    ] = False,
) -> None:
    """Stop the federation of a folder.

    Example: whimbrel down --purge
    """
    from whimbrel.cli.federation import control

    folder = Folder(data_dir.resolve())
    if purge and folder.root.exists() and not (folder.root / "version").exists():
        raise InvalidInput(f"{folder.root} is not a data folder of whimbrel: nothing was removed")
    if folder.running:
        _stop(folder, control)
        show.say(f"stopped the federation in {folder.root}")
    else:
        show.say(f"no federation runs in {folder.root}")
    if purge:
        folder.purge()
        show.say(f"removed {folder.root}")


def _stop(folder: Folder, control: ModuleType) -> None:
    try:
        control.call(folder, {"do": "stop"})
    except Unreachable:
        # Still starting, or its door does not answer: the signal says the same.
        pid = (folder.root / "lock").read_text().strip()
        if pid.isdigit():
            os.kill(int(pid), signal.SIGTERM)
    deadline = time.monotonic() + STOP_SECONDS
    while folder.running:
        if time.monotonic() > deadline:
            raise Unreachable(
                f"the federation in {folder.root} did not stop within {STOP_SECONDS:.0f} s",
                remedy="look into its logs folder",
            )
        time.sleep(0.05)
