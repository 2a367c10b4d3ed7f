"""`make report`: injects faults, explores the model, takes guards out, and writes what came of it
to docs/failure-report.md.

Every part leaves its figures in a folder of its own (`--keep DIR` to go on from there later), and
the document is made from those alone.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.report.document import document
from bench.report.parts import FULL, PARTS, QUICK
from bench.report.plots import draw

DOCS = Path(__file__).parents[2] / "docs"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.report", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few injections of each kind")
    parser.add_argument("--only", action="append", choices=list(PARTS), metavar="PART",
                        help=f"may be repeated; of {', '.join(PARTS)}")  # fmt: skip
    parser.add_argument("--keep", type=Path, metavar="DIR",
                        help="folder of figures; what is there is not measured")  # fmt: skip
    parser.add_argument("--docs", type=Path, default=DOCS, help="where the report is written")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="wreport-", ignore_cleanup_errors=True) as name:
        kept: Path = given.keep or Path(name, "figures")
        kept.mkdir(parents=True, exist_ok=True)
        for part, measure in PARTS.items():
            file = kept / f"{part}.json"
            if file.exists() or (given.only and part not in given.only):
                continue
            print(f"report: {part}", file=sys.stderr, flush=True)
            began = time.time()
            figures = measure(Path(name, part), QUICK if given.quick else FULL)
            figures |= {"at": about(), "seconds": round(time.time() - began, 1)}
            file.write_text(json.dumps(figures, indent=1) + "\n")
        figures = {part: json.loads((kept / f"{part}.json").read_text())
                   for part in PARTS if (kept / f"{part}.json").exists()}  # fmt: skip
    pictures = given.docs / "failure-report"
    pictures.mkdir(parents=True, exist_ok=True)
    drawn = draw(figures, pictures)
    text, violations = document(figures, drawn)
    (given.docs / "failure-report.md").write_text(text)
    print(f"{given.docs / 'failure-report.md'}: {violations} violations", file=sys.stderr)
    return 1 if violations else 0


def about() -> dict[str, Any]:
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=DOCS.parent
    ).stdout.strip()
    return {
        "when": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "commit": commit or "unknown",
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "python": platform.python_version(),
    }


if __name__ == "__main__":
    sys.exit(main())
