"""The command line: noun, verb. Results go to stdout, the rest to stderr; `app.py` has the exit
codes."""

from whimbrel.cli.app import main

__all__ = ["main"]
