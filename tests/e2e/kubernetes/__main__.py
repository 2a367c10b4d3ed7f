"""Test clusters for a person: `python -m tests.e2e.kubernetes up | down | status`.

Behind `make clusters` and `make clusters-down`. Writes for each region what `whimbrel up` needs,
and prints the command.
"""

import argparse
import sys
from concurrent.futures import ThreadPoolExecutor

from tests.e2e.kubernetes.cluster import Cluster
from tests.e2e.kubernetes.settings import up_options
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
    for cluster in clusters:
        say(f"{cluster.name} is ready: kubectl --kubeconfig {cluster.kubeconfig} get pods -A")
    options = up_options(clusters)
    pairs = [f"  {name} {value}" for name, value in zip(options[::2], options[1::2], strict=True)]
    say("\n" + " \\\n".join(["whimbrel up", *pairs]))


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


if __name__ == "__main__":
    sys.exit(main())
