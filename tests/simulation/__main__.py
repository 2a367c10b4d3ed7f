"""`python -m tests.simulation --seeds FIRST LAST`: more seeds than the tests have time for.

Prints the seeds that broke something; the same seed breaks it again.
"""

import argparse
import logging
import sys
import tempfile
import traceback
from pathlib import Path

from tests.simulation.loop import simulate
from tests.simulation.test_simulation import history


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", nargs=2, type=int, default=(100, 200), metavar=("FIRST", "LAST"))
    given = parser.parse_args()
    logging.disable(logging.CRITICAL)
    broken: list[int] = []
    for seed in range(given.seeds[0], given.seeds[1]):
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            try:
                simulate(seed, history(Path(folder), seed))
            except Exception:
                traceback.print_exc()
                broken.append(seed)
    print(f"{given.seeds[1] - given.seeds[0]} seeds, broken: {broken or 'none'}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
