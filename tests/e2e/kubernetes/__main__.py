"""Test clusters for a person: `python -m tests.e2e.kubernetes up | down | status`.

Behind `make clusters` and `make clusters-down`. Writes for each region what `whimbrel up` needs,
and prints the command.
"""

import argparse
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.e2e.kubernetes.cluster import Cluster
from tests.e2e.kubernetes.state import STATE, why_not

REGIONS = ("us-east", "eu-west", "ap-south")


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.e2e.kubernetes", description=__doc__)
    parser.add_argument("command", choices=("up", "down", "status"))
    parser.add_argument("--region", action="append", help="repeatable; without it: all")
    parser.add_argument("--nodes", type=int, default=1, help="of each region (up)")
    given = parser.parse_args()
    if missing := why_not():
        sys.stderr.write(f"{missing}\n")
        return 2
    match given.command:
        case "up":
            up(given.region or REGIONS, nodes=given.nodes)
        case "down":
            down(given.region or present())
        case _:
            status(given.region or present())
    return 0


def up(regions: tuple[str, ...] | list[str], *, nodes: int) -> None:
    clusters = [Cluster(region, say=say) for region in regions]
    say(f"starting {', '.join(regions)} (servers are built the first time: some minutes)")
    with ThreadPoolExecutor(len(clusters)) as pool:
        for started in [pool.submit(cluster.up, nodes=nodes) for cluster in clusters]:
            started.result()
    command = ["whimbrel up"]
    for cluster in clusters:
        kubeconfig, settings = cluster.agent_kubeconfig(), write_settings(cluster, clusters)
        command.append(f"--kubeconfig {cluster.name}={kubeconfig}")
        command.append(f"--agent-settings {cluster.name}={settings}")
        say(f"{cluster.name} is ready: kubectl --kubeconfig {cluster.kubeconfig} get pods -A")
    say("\n" + " \\\n  ".join(command))


def down(regions: list[str]) -> None:
    for region in regions:
        Cluster(region).down()
        say(f"{region} is gone")


def status(regions: list[str]) -> None:
    for region in regions:
        cluster = Cluster(region)
        if not cluster.running:
            say(f"{region}: not running")
            continue
        try:
            ready = ", ".join(sorted(cluster.ready_nodes())) or "none"
            say(f"{region}: {cluster.control.address}, nodes ready: {ready}")
        except RuntimeError as error:
            say(f"{region}: its API server does not answer: {error}")


def present() -> list[str]:
    return sorted(file.parent.name for file in STATE.glob("*/index"))


def write_settings(cluster: Cluster, peers: list[Cluster]) -> Path:
    path = cluster.folder / "agent.toml"
    path.touch(mode=0o600)
    path.write_text(as_toml(cluster.agent_settings(peers)))
    return path


def as_toml(settings: dict[str, Any]) -> str:
    """Strings and one table of tables: a JSON string is a TOML string."""
    lines: list[str] = []
    tables: list[str] = []
    for key, value in settings.items():
        if isinstance(value, str):
            lines.append(f"{key} = {json.dumps(value)}")
            continue
        for name, table in value.items():
            tables.append(f"\n[{key}.{json.dumps(name)}]")
            tables += [f"{inner} = {json.dumps(text)}" for inner, text in table.items()]
    return "\n".join([*lines, *tables, ""])


if __name__ == "__main__":
    sys.exit(main())
