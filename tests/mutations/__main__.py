"""`python -m tests.mutations`: take each guard out of a copy of the code and run its tests.

    python -m tests.mutations                         every guard (`make mutations`)
    python -m tests.mutations --only fence_epoch      one, or more
    python -m tests.mutations --json FILE             write a report

Exits with 1 when one is not noticed or can't be tried, with 2 when none can.
"""

import argparse
import json
import queue
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.control_plane.postgres import postgres
from tests.mutations.catalogue import MUTATIONS
from tests.mutations.checkout import Checkout
from tests.mutations.mutation import Mutation, Unfit
from tests.mutations.trial import Found, Outcome, attempt, green

WORKERS = 2


def main(arguments: Sequence[str]) -> int:
    options = parsed(arguments)
    if options.list:
        print("\n".join(f"{one.name:<28}{one.invariant:<10}{one.guard}" for one in MUTATIONS))
        return 0
    chosen = [one for one in MUTATIONS if not options.only or one.name in options.only]
    if missing := set(options.only) - {one.name for one in chosen}:
        print("no such mutation:", *sorted(missing), file=sys.stderr)
        return 2
    begun = time.monotonic()
    done: list[Found] = []
    try:
        for found in tried(chosen, workers=min(options.jobs, WORKERS)):
            print(line(found), flush=True)
            done.append(found)
    except Unfit as error:
        print(error, file=sys.stderr)
        return 2
    caught = sum(found.outcome is Outcome.CAUGHT for found in done)
    print(f"{caught} of {len(done)} are caught, {time.monotonic() - begun:.0f} s")
    if options.json:
        Path(options.json).write_text(json.dumps([f.as_json() for f in done], indent=1) + "\n")
    return int(caught < len(done))


def parsed(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.mutations", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--only", metavar="NAME", nargs="+", default=[], help="only these")
    parser.add_argument("--list", action="store_true", help="say which there are")
    parser.add_argument("--json", metavar="FILE", help="write a report")
    parser.add_argument("--jobs", type=int, default=WORKERS, help="pytests at once, at most 2")
    return parser.parse_args(arguments)


def tried(mutations: Sequence[Mutation], *, workers: int) -> Iterator[Found]:
    """In the order given."""
    with tempfile.TemporaryDirectory(prefix="mutations-") as folder, postgres() as url:
        more = {"WHIMBREL_TEST_POSTGRES": url} if url else {}
        copies: queue.SimpleQueue[Checkout] = queue.SimpleQueue()
        for number in range(workers):
            copies.put(Checkout(Path(folder) / str(number), environment=more))
        first = copies.get()
        tests = list(dict.fromkeys(test for one in mutations for test in one.tests))
        passing = green(first, tests)
        copies.put(first)

        def one(mutation: Mutation) -> Found:
            checkout = copies.get()
            try:
                return attempt(mutation, checkout, green=passing.issuperset(mutation.tests))
            finally:
                copies.put(checkout)

        with ThreadPoolExecutor(workers) as pool:
            yield from pool.map(one, mutations)


def line(found: Found) -> str:
    seconds = f"{found.seconds:.1f} s"
    text = found.caught_by or found.said or "no test noticed"
    return f"{found.mutation.name:<28}{found.outcome:<10}{seconds:>7}  {text}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
