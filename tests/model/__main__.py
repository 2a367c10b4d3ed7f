"""`python -m tests.model`: explore every scenario and print what was found.

    python -m tests.model                     the scenarios that CI explores
    python -m tests.model --all               the large ones, too (`make model`)
    python -m tests.model takeover gate       only these
    python -m tests.model --mutations         every rule left out once
    python -m tests.model --without pinned_stays --trace     one rule left out, its counterexample

Exits with 1 when something is broken that should not be.
"""

import argparse
import json
import multiprocessing
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from tests.model.explore import Found, explore
from tests.model.mutations import MUTATIONS, UNSEEN
from tests.model.report import HEAD, as_json, checked, line, story
from tests.model.scenarios import COMPLETE, LARGE
from tests.model.setup import Setup

LIMIT = 1_000_000
"""States of one scenario: some 250 MB. More than that is not explored to the end."""


def main(arguments: Sequence[str]) -> int:
    options = parsed(arguments)
    expected, setups = chosen(options)
    if not setups:
        print("no such scenario:", *options.names, file=sys.stderr)
        return 2
    print(f"{HEAD}invariants that it can break")
    done: list[Found] = []
    for found in explored(setups, jobs=options.jobs, limit=options.limit):
        done.append(found)
        print(f"{line(found)}{' '.join(checked(found.setup))}", flush=True)
        if options.trace and found.breach:
            print("\n".join(story(found)), flush=True)
    states, seconds = sum(f.states for f in done), sum(f.seconds for f in done)
    print(f"{len(done)} scenarios, {states} states, {seconds:.0f} s of work")
    if options.json:
        rules = {one.setup.name: one for one in (*MUTATIONS, *UNSEEN)}
        said = [as_json(found, rules.get(found.setup.name)) for found in done]
        Path(options.json).write_text(json.dumps(said, indent=1) + "\n")
    return int(any(found.breach.split(" ")[0] != expected[found.setup.name] for found in done))


def parsed(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.model", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("names", nargs="*", help="scenarios; none = those that CI explores")
    parser.add_argument("--all", action="store_true", help="the large ones, too")
    parser.add_argument("--mutations", action="store_true", help="every rule left out once")
    parser.add_argument("--without", metavar="RULE", help="one rule left out")
    parser.add_argument("--trace", action="store_true", help="tell each counterexample")
    parser.add_argument("--json", metavar="FILE", help="write a report")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes at once")
    parser.add_argument("--limit", type=int, default=LIMIT, help="states of one scenario")
    return parser.parse_args(arguments)


def chosen(options: argparse.Namespace) -> tuple[dict[str, str], list[Setup]]:
    """Which invariant each is expected to break ("" = none), and the setups."""
    if options.mutations or options.without:
        some = [one for one in (*MUTATIONS, *UNSEEN) if options.without in (None, one.rule)]
        return {one.setup.name: one.breaks for one in some}, [one.setup for one in some]
    every = [*COMPLETE, *LARGE]
    names = options.names or [one.name for one in (every if options.all else COMPLETE)]
    return dict.fromkeys(names, ""), [one for one in every if one.name in names]


def explored(setups: Sequence[Setup], *, jobs: int, limit: int) -> Iterator[Found]:
    """In the order given, each in a process of its own (a fresh one, so that memory is given
    back)."""
    if jobs == 1:
        yield from (explore(setup, limit=limit) for setup in setups)
        return
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=spawn, max_tasks_per_child=1) as pool:
        yield from pool.map(partial(explore, limit=limit), setups)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
