"""`python -m whimbrel.cli`, the same as `whimbrel`."""

import sys

from whimbrel.cli.app import main

if __name__ == "__main__":
    sys.exit(main())
